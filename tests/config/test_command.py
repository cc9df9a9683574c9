"""How a command's words and a trial's values become arguments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlhpo.config.command import TemplateError, arguments, fill, parameter_arguments, placeholders, split


def line(command: str, values: dict[str, Any], **pass_as: str) -> list[str]:
    return arguments(split(command), lambda: values, pass_as, lambda name: values[name])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, ["--x=0.5"]),
        (1e-05, ["--x=1e-05"]),
        (3, ["--x=3"]),
        ("adam", ["--x=adam"]),
        (True, ["--x"]),
        (False, ["--no-x"]),
        (None, []),
        ([16, 32], ["--x=[16, 32]"]),
        ({"a": 1}, ['--x={"a": 1}']),
    ],
)
def test_default_form(value: Any, expected: list[str]) -> None:
    assert parameter_arguments("x", value) == expected


@pytest.mark.parametrize(
    ("pass_as", "value", "expected"),
    [
        ("--learning_rate={v}", 0.5, ["--learning_rate=0.5"]),
        ("--lr {v}", 0.5, ["--lr", "0.5"]),
        ("{v}", "a b", ["a b"]),
        ("-D 'rate = {v}'", 0.5, ["-D", "rate = 0.5"]),
        ("--use {v}", False, ["--use", "false"]),
        ("--fast", True, ["--fast"]),
        ("--fast", False, []),
        ("--set={{{v}}}", 1, ["--set={1}"]),
        ("--lr={v}", None, []),
    ],
)
def test_form_of_a_parameters_own(pass_as: str, value: Any, expected: list[str]) -> None:
    assert parameter_arguments("x", value, pass_as) == expected


def test_all_placeholders() -> None:
    made = line("run 'a b' --rate={rate} {parameters} --json={{}}", {"rate": 0.1, "deep": True}, rate="-r {v}")
    assert made == ["run", "a b", "--rate=0.1", "-r", "0.1", "--deep", "--json={}"]


def test_word_of_a_parameter_without_a_value_is_left_out() -> None:
    assert line("run --a={absent} --b={null} c", {"null": None}) == ["run", "c"]


@given(st.text())
def test_no_value_becomes_a_second_argument_or_another_placeholder(value: str) -> None:
    assert line("run {x} {parameters} end", {"x": value}, x="--x {v}") == ["run", value, "--x", value, "end"]
    assert parameter_arguments("x", value) == [f"--x={value}"]


@pytest.mark.parametrize("text", ["{", "}", "a{b", "{a}}", "{{a}", "{a{b}}"])
def test_lone_brace(text: str) -> None:
    with pytest.raises(TemplateError, match="stands alone"):
        placeholders(text)


@pytest.mark.parametrize("text", ["run 'a", 'run "a', "run a\\"])
def test_open_quotation(text: str) -> None:
    with pytest.raises(TemplateError):
        split(text)


def test_doubled_braces_stand_for_braces() -> None:
    assert fill('{{"x": {x}}}', lambda name: "1") == '{"x": 1}'
