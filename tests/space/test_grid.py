"""Studies that run every combination: which there are, and what is wrong with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aimlhpo.config.load import load_snapshot
from aimlhpo.space.search_space import Grid, grid_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from tests.files import Files

LAYERS = "    layers:0:units: {type: multiple, settings: {name: units, values: [16, 32]}}\n"
EPOCHS = "    epochs: {type: linear, settings: {start: 1, end: 3, step: 1}}\n"


def write(files: Files, parameters: str, more: str = "") -> Files:
    files.write(f"parameters:\n{parameters}{more}")
    text = files.hyperparameters.read_text()
    files.hyperparameters.write_text(text.replace("  n_trials: 4\n", ""))
    return files


def grid(config: Config) -> Grid:
    found = grid_of(config.space)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("single, settings: {value: 5}", [5]),
        ("multiple, settings: {values: [a, 2, [1, 2], null]}", ["a", 2, [1, 2], None]),
        ("linear, settings: {start: 1, end: 10, step: 3}", [1, 4, 7, 10]),
        ("linear, settings: {start: 0, end: 0.35, step: 0.1}", [0.0, 0.1, 0.2, 0.3]),
        ("logspace, settings: {base: 10, start: -3, end: -1, count: 3}", [0.001, 0.01, 0.1]),
        ("logspace, settings: {base: 2, start: 4, end: 7, count: 4}", [16, 32, 64, 128]),
        ("logspace, settings: {start: 0, end: 1, count: 3}", [1.0, 10**0.5, 10.0]),
    ],
)
def test_the_values_of_each_type(files: Files, entry: str, values: list[Any]) -> None:
    config = write(files, f"    epochs: {{type: {entry}}}\n").load()
    assert [point["epochs"] for point in grid(config).points({})] == values
    assert config.optuna.n_trials == len(values)


def test_random_values_are_drawn_once_from_the_seed(files: Files) -> None:
    entry = "    epochs: {type: random, settings: {distribution: {type: int, settings: {low: 1, high: 9}}, count: 5}}\n"
    found = grid(write(files, entry + LAYERS).load())
    drawn = found.draw(seed=7)
    assert drawn == found.draw(seed=7)
    assert drawn != found.draw(seed=8)
    assert len(set(drawn["epochs"])) == 5
    assert set(drawn["epochs"]) <= set(range(1, 10))
    assert found.permutations == 10
    assert {point["epochs"] for point in found.points(drawn)} == set(drawn["epochs"])


def test_other_finite_types_take_part_and_infinite_ones_end_the_grid(files: Files) -> None:
    finite = "    optimizer:weight_decay: {type: float, settings: {low: 0, high: 1, step: 0.5}}\n"
    assert write(files, LAYERS + EPOCHS + finite).load().optuna.n_trials == 18
    files.write(f"parameters:\n{LAYERS}    optimizer:weight_decay: {{type: float, settings: {{low: 0, high: 1}}}}\n")
    config = files.load()
    assert grid_of(config.space) is None
    assert config.optuna.n_trials == 4
    files.write("parameters:\n    epochs: {type: categorical, settings: {choices: [1, 2]}}\n")
    assert grid_of(files.load().space) is None


def test_conditional_parameters_multiply_only_where_they_are_searched(files: Files) -> None:
    conditional = """\
    optimizer:weight_decay:
      type: multiple
      settings: {values: [0.1, 0.2, 0.3]}
      dependency: {type: optimize_iff, on: units, conditions: [{type: equal, compare_value: 32}]}
"""
    config = write(files, conditional + LAYERS + EPOCHS).load()
    assert config.optuna.n_trials == 3 * (1 + 3)
    points = list(grid(config).points({}))
    assert len({repr(sorted(point.items())) for point in points}) == 12
    assert all(("optimizer:weight_decay" in point) == (point["units"] == 32) for point in points)


def test_a_part_of_the_grid_can_be_asked_for(files: Files) -> None:
    config = write(files, LAYERS + EPOCHS).load("optuna:n_trials=5")
    assert config.optuna.n_trials == 5
    config.write_snapshot()
    assert load_snapshot(config.paths).optuna.n_trials == 5


@pytest.mark.parametrize(
    ("entry", "where", "words"),
    [
        ("single, settings: {}", "settings: value", "is missing"),
        ("multiple, settings: {values: 3}", "settings: values", "3 is not a list"),
        ("multiple, settings: {values: []}", "settings: values", "at least one value"),
        ("multiple, settings: {values: [1, 1]}", "settings: values", "given twice"),
        ("linear, settings: {start: 2, end: 1, step: 1}", "settings: start", "greater than end"),
        ("linear, settings: {start: 1, end: 2, step: 0}", "settings: step", "not a positive number"),
        ("linear, settings: {start: a, end: 2, step: 1}", "settings: start", "'a' is not a number"),
        ("linear, settings: {start: 0, end: 1, step: 1e-9}", "settings: step", "a wider step"),
        ("linear, settings: {start: 0, end: 1, step: 1, stop: 1}", "settings: stop", "did you mean: step"),
        ("logspace, settings: {start: 0, end: 1, count: 0}", "settings: count", "0 is not a count"),
        ("logspace, settings: {start: 1, end: 1, count: 2}", "settings: count", "different values"),
        ("logspace, settings: {start: 0, end: 1, count: 2, base: 1}", "settings: base", "not a base"),
        ("logspace, settings: {start: 0, end: 1e4, count: 2, base: 10.5}", "settings: end", "smaller exponents"),
        ("random, settings: {distribution: uniform, count: 2}", "settings: distribution", "is not a distribution"),
        (
            "random, settings: {distribution: {type: unifrm, settings: {low: 0, high: 1}}, count: 2}",
            "settings: distribution: type", "did you mean: uniform",
        ),
        (
            "random, settings: {distribution: {type: uniform, settings: {low: 2, high: 1}}, count: 2}",
            "settings: distribution: settings: low", "greater than high",
        ),
        (
            "random, settings: {distribution: {type: int, settings: {low: 1, high: 2}}, count: 3}",
            "settings: count", "3 of 2 values",
        ),
        (
            "random, settings: {distribution: {type: single, settings: {value: 1}}, count: 1}",
            "settings: distribution: type", "a grid's own type",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_one_parameter(files: Files, entry: str, where: str, words: str) -> None:
    found = write(files, f"    epochs: {{type: {entry}}}\n").problems()
    assert set(found) == {f"optuna: parameters: epochs: {where}"}
    assert words in "\n".join(map(str, found.values()))


INFINITE = "    optimizer:weight_decay: {type: uniform, settings: {low: 0, high: 1}}\n"
UNIFORM = "{type: uniform, settings: {low: 0, high: 1}}"
RANDOM = f"    epochs: {{type: random, settings: {{distribution: {UNIFORM}, count: 2}}}}\n"
ON_RANDOM = """\
    optimizer:weight_decay:
      type: single
      settings: {value: 1}
      dependency: {type: optimize_iff, on: epochs, conditions: [{type: greater, compare_value: 0.5}]}
"""
HUGE = "    epochs: {type: linear, settings: {start: 1, end: 90000, step: 1}}\n" + LAYERS.replace(
    "[16, 32]", f"{list(range(20))}"
)


@pytest.mark.parametrize(
    ("parameters", "more", "where", "words"),
    [
        (EPOCHS, "n_trials: 5\n", "optuna: n_trials", "5 is more than the 3 permutations"),
        (EPOCHS, "sampler: TPESampler\n", "optuna: sampler", "runs every combination"),
        (EPOCHS, "enqueue: [{epochs: 1}]\n", "optuna: enqueue", "queues every combination"),
        (RANDOM + INFINITE, "n_trials: 5\n", "optuna: parameters: epochs: type", "infinitely many values"),
        (RANDOM + ON_RANDOM, "", "optuna: parameters: optimizer:weight_decay: dependency: on", "drawn at random"),
        (HUGE, "", "optuna: parameters", "1800000 permutations"),
        (INFINITE, "", "optuna: n_trials", "is missing"),
    ],
)
def test_mistakes_in_the_whole(files: Files, parameters: str, more: str, where: str, words: str) -> None:
    found = write(files, parameters, more).problems()
    assert set(found) == {where}
    assert words in str(found[where])
