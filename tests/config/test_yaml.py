"""Values mean what they look like; what is not plain data is refused, quickly and by name."""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aimlhpo.config.load import read_mapping
from aimlhpo.config.yaml import MAX_BYTES, dump_yaml, from_python, load_yaml, parse_yaml
from aimlhpo.errors import ConfigError


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "file.yml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:00:00", "12:00:00"),
        ("1-00:00:00", "1-00:00:00"),
        ("10:30", "10:30"),
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("7", 7),
        ("-7", -7),
        ("0x10", 16),
        ("1_000_000", 1000000),
        ("2024_01", "2024_01"),
        ("0700", "0700"),
        ("1.2.3", "1.2.3"),
        ("2024-01-31", "2024-01-31"),
        ("true", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("'1e-3'", "1e-3"),
        ("e3", "e3"),
        ("[1, a, [2]]", [1, "a", [2]]),
        ("gpu:v100:1", "gpu:v100:1"),
    ],
)
def test_values_mean_what_they_look_like(text: str, value: Any) -> None:
    read = parse_yaml(f"x: {text}", "file.yml")["x"]
    assert (read, type(read)) == (value, type(value))


def test_infinity_and_nan() -> None:
    read = parse_yaml("[.inf, -.inf, .nan]", "file.yml")
    assert read[:2] == [math.inf, -math.inf]
    assert math.isnan(read[2])


def test_a_key_is_never_a_boolean() -> None:
    assert parse_yaml("{on: 1, yes: 2, n: 3, true: 4}", "f") == {"on": 1, "yes": 2, "n": 3, "true": 4}


def test_dates_are_dates_where_they_are_asked_for() -> None:
    assert parse_yaml("x: 2024-01-31", "f", dates=True) == {"x": datetime.date(2024, 1, 31)}


def test_aliases_give_copies_of_their_own() -> None:
    read = parse_yaml("a: &x {units: [1]}\nb: *x\nc: {<<: *x, more: 2}", "f")
    assert read == {"a": {"units": [1]}, "b": {"units": [1]}, "c": {"units": [1], "more": 2}}
    read["a"]["units"].append(2)
    assert read["b"]["units"] == [1]


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    text = refusal("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert "line 5" in text
    assert "'c' is given twice (first in line 3)" in text


def test_every_duplicate_and_tag_is_told_at_once() -> None:
    text = refusal("a: 1\na: 2\nb: !!python/name:os.system\nc: !mine 1\n")
    assert "'a' is given twice" in text
    assert "!!python/name:os.system" in text
    assert "!mine" in text


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/object/new:os.system", "python/tuple"])
def test_python_tags_are_refused_by_name_and_run_nothing(tag: str, tmp_path: Path) -> None:
    text = refusal(f"x: !!{tag} ['touch {tmp_path}/made']")
    assert f"!!{tag}" in text
    assert "line 1" in text
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_parse_is_shown_with_line_and_column() -> None:
    text = refusal("a: 1\nb: [1, 2\nc: 3\n")
    assert "file.yml, line 3" in text
    assert "c: 3" in text


def test_a_tab_is_called_a_tab() -> None:
    assert "a tab where YAML wants spaces" in refusal("a:\n\tb: 1\n")


def test_two_documents_are_refused() -> None:
    assert "line 2" in refusal("a: 1\n--- \nb: 2\n")


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
        ),
        "a: &a {x: 1}\n" + "".join(
            f"{b}: &{b} {{" + ", ".join(f"k{i}: *{a}" for i in range(9)) + "}\n"
            for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
        ),
        "a: &a {<<: [*a, *a]}",
        "a: &a [*a]",
        "[" * 50_000,
        "x: " + "{a: " * 5000,
        "x: 1" + "0" * 10_000,
        "- [[1],[2]]\n" * 60_000,
    ],
    ids=["lists", "mappings", "merge circle", "circle", "nested lists", "nested mappings", "number", "many values"],
)  # fmt: skip
def test_bombs_are_refused(bomb: str) -> None:
    assert len(refusal(bomb)) < 2000


def test_files_that_are_none(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_yaml(path)
        return str(caught.value)

    (tmp_path / "model.yml").write_text("a: 1")
    (tmp_path / "binary.yml").write_bytes(bytes(range(1, 256)) + b"\0")
    (tmp_path / "nul.yml").write_bytes(b"a: \0")
    (tmp_path / "large.yml").write_bytes(b"a" * (MAX_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.yml")
    missing = told(tmp_path / "modle.yml")
    assert "no such file" in missing
    assert f"did you mean: {tmp_path}/model.yml" in missing
    assert "not a text file" in told(tmp_path / "binary.yml")
    assert "NUL" in told(tmp_path / "nul.yml")
    assert "at most 1,000,000 bytes" in told(tmp_path / "large.yml")
    assert "is a directory" in told(tmp_path)
    assert "is not a file" in told(tmp_path / "pipe.yml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_yaml(tmp_path / "a.yml") == {"a": 1}


def test_what_is_written_is_read_back_here_and_by_plain_yaml() -> None:
    data = {
        "time": "12:00:00", "exponent": "1e-3", "small": 1e-7, "large": 1e30, "truth": "yes", "octal": "0700",
        "date": "2024-01-31", "none": None, "lines": "a\nb\n", "list": [1, "1", [True, "true"]], "number": "7",
        "control": "a\tb\x1b", "unicode": "größe", "empty": "", "colon": "a: b", "inf": math.inf, 3: "three",
        "keys": {"on": 1, "7": 2, "12:00": 3}, "infinity": ".inf", "null": "null", "hash": "# no", "under": "1_000",
    }  # fmt: skip
    text = dump_yaml(data)
    assert parse_yaml(text, "f") == data
    assert yaml.safe_load(text) == data
    assert list(parse_yaml(text, "f")) == list(data)


def test_what_python_gives_is_what_yaml_would_hold() -> None:
    given = {
        "rate": np.float32(0.5), "units": np.int64(3), "good": np.bool_(True), "choices": np.array([1, 2]),
        "pair": (1, "1"), "path": Path("/data"), "none": None, np.str_("text"): np.str_("x"),
        3: {"deep": [np.array(1.5)]},
    }  # fmt: skip
    plain = from_python(given, "model")
    assert plain == {
        "rate": 0.5, "units": 3, "good": True, "choices": [1, 2], "pair": [1, "1"], "path": "/data", "none": None,
        "text": "x", 3: {"deep": [1.5]},
    }  # fmt: skip
    assert type(plain["good"]) is bool
    assert parse_yaml(dump_yaml(plain), "f") == plain
    day = datetime.date(2026, 1, 31)
    assert from_python({"day": day}, "model", dates=True) == {"day": day}
    with pytest.raises(ConfigError, match=r"hyperparameters: optuna: day: .* is of type date"):
        from_python({"optuna": {"day": day}}, "hyperparameters")
    with pytest.raises(ConfigError, match=r"model: choices: 1: .* is of type set"):
        from_python({"choices": [1, {2}]}, "model")


def test_a_mapping_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(ConfigError, match="holds itself"):
        read_mapping(endless, "model")
