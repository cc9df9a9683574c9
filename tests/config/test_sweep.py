"""Sweeps on the command line: what each form means, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aimlhpo.config.overrides import Sweep
from aimlhpo.errors import ConfigError

if TYPE_CHECKING:
    from tests.files import Files

LR = """
    parameters:
      optimizer:learning_rate: {type: loguniform, settings: {name: lr, low: 1e-5, high: 1e-1}}
"""


def entry(text: str) -> Any:
    return Sweep(f"x={text}", text).entry()


@pytest.mark.parametrize(
    ("text", "kind", "settings"),
    [
        ("interval(0.00001, 0.001)", "float", {"low": 0.00001, "high": 0.001}),
        ("tag(log, interval(1e-5, 1e-1))", "float", {"low": 1e-5, "high": 0.1, "log": True}),
        ("range(1, 10, 2)", "int", {"low": 1, "high": 9, "step": 2}),
        ("range(1, 10)", "int", {"low": 1, "high": 9}),
        ("range(4)", "int", {"low": 0, "high": 3}),
        ("range(start=0, stop=1, step=0.25)", "float", {"low": 0, "high": 0.75, "step": 0.25}),
        ("tag(log, range(1, 100))", "int", {"low": 1, "high": 99, "log": True}),
        ("choice(adam, sgd)", "categorical", {"choices": ["adam", "sgd"]}),
        ("choice([16, 16], [32], null, true, 'a,b')", "categorical", {"choices": [[16, 16], [32], None, True, "a,b"]}),
        ("a,b", "categorical", {"choices": ["a", "b"]}),
        ("1e-3, 0.1", "categorical", {"choices": [0.001, 0.1]}),
        ("[1,2],[3]", "categorical", {"choices": [[1, 2], [3]]}),
    ],
)
def test_forms(text: str, kind: str, settings: dict[str, Any]) -> None:
    assert entry(text) == {"type": kind, "settings": settings}


@pytest.mark.parametrize(
    "text", ["[a,b]", "{a: 1, b: 2}", "'a,b'", '"interval(0, 1)"', "0.1", "adam", "", "12:00:00", ":)"]
)
def test_plain_values(text: str) -> None:
    assert entry(text) is None


@pytest.mark.parametrize(
    ("text", "character", "words"),
    [
        ("intervall(0, 1)", 1, "did you mean: interval"),
        ("relu(x)", 1, "or quotes around a text"),
        ("interval(0, 1", 9, "is never closed"),
        ("interval(0, 1) + 1", 15, "stands behind interval(...)"),
        ("interval(0)", 1, "interval takes 2 numbers, not 1"),
        ("interval(a, 1)", 10, "'a' is not a number"),
        ("interval(2, 1)", 10, "2 is greater than 1"),
        ("interval(from=2, 1)", 10, "interval has no (other) 'from'"),
        ("tag(log, interval(0, 1))", 19, "logarithmic scale"),
        ("tag(lgo, interval(1, 2))", 5, "there is no tag 'lgo'"),
        ("tag(log)", 1, "tag needs a tag"),
        ("tag(log, 5)", 9, "is no range of values"),
        ("tag(log, choice(1, 2))", 10, "choices have no logarithmic scale"),
        ("tag(log, range(1, 9, 2))", 10, "without a step"),
        ("range(3, 3)", 1, "the range is empty"),
        ("range(1, 5, 0)", 1, "STEP above 0"),
        ("choice()", 8, "a value is missing"),
        ("a,,b", 3, "a value is missing"),
        ("a,b,", 5, "a value is missing"),
        ("a,b,a", 5, "'a' is given twice"),
        ("choice(a, choice(b))", 10, "stands where a value has to"),
        ("choice(a], b)", 9, "closes nothing"),
        ("choice('a, b)", 8, "is never closed"),
    ],
)
def test_mistakes_show_the_text_the_place_and_what_is_legal(text: str, character: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        entry(text)
    told = str(caught.value)
    assert told.startswith(f"x={text}: ")
    assert f"character {character}:" in told
    assert "legal: " in told
    assert words in told


def test_sweeps_add_to_the_file_and_replace(files: Files) -> None:
    config = files.write(LR).load(
        "optimizer.weight_decay=interval(0.00001, 0.001)",
        "optimizer:learning_rate=choice(0.1, 0.2)",
        "layers.0.units=8,16",
        "epochs=[1, 2]",
    )
    found = {key: (p.name, p.type) for key, p in config.space.by_key.items()}
    assert found == {
        "optimizer:learning_rate": ("lr", "categorical"),
        "optimizer:weight_decay": ("optimizer:weight_decay", "float"),
        "layers:0:units": ("layers:0:units", "categorical"),
    }
    assert config.model["epochs"] == [1, 2]
    assert files.load("lr=range(1, 5)").space.by_key["optimizer:learning_rate"].type == "int"


def test_sweeps_replace_what_stands_in_the_model(files: Files) -> None:
    files.write(model="heads: {hyper_opt: {suggest: int, params: {low: 2, high: 8}}}\n")
    assert files.load("heads=2,4").space.by_key["heads"].settings["choices"] == [2, 4]
    assert files.load("heads=3").space.parameters == ()


def test_a_plain_value_fixes_what_was_searched(files: Files) -> None:
    config = files.write(LR).load("optimizer.learning_rate=0.5")
    assert config.space.parameters == ()
    assert config.model["optimizer"]["learning_rate"] == 0.5


def test_options_of_the_sampler(files: Files) -> None:
    sampler = files.load("sampler.n_startup_trials=30").optuna.sampler
    assert sampler is not None
    assert (sampler.type, sampler.arguments) == ("TPESampler", {"n_startup_trials": 30})
    other = files.write("sampler: CmaEsSampler").load("sampler.n_startup_trials=3", "pruner=NopPruner").optuna
    assert other.sampler is not None
    assert other.pruner is not None
    assert (other.sampler.type, other.pruner.type) == ("CmaEsSampler", "NopPruner")
    assert "n_startup_trials" in str(files.problems(["sampler.n_startup_trails=3"]))


def test_a_path_that_is_nowhere(files: Files) -> None:
    assert "did you mean: optimizer:weight_decay" in str(*files.problems(["optimizer.weigth_decay=1,2"]).values())
