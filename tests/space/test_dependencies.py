"""Parameters that depend on others, in both files."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from aimlhpo.config.load import load_snapshot
from aimlhpo.space.search_space import SearchSpace

if TYPE_CHECKING:
    from tests.files import Files

TRANSFORMER = """
    model:
      num_transformer_heads: {hyper_opt: {suggest: int, params: {low: 2, high: 8, step: 2}}}
      dim: {hyper_opt: {suggest: int, params: {low: 16, high: 32}, dependency: {type: multiply, on: "model.num_transformer_heads"}}}
      layers:
        - {units: {hyper_opt: {suggest: categorical, params: {choices: [8, 16]}}}}
    optimizer: {name: adam, momentum: 0.5, nesterov: false}
    scale: 3
"""  # noqa: E501
SGD = """
    parameters:
      optimizer:nesterov:
        type: categorical
        settings: {name: nesterov, choices: [true, false]}
        dependency: {type: optimize_iff, on: optimizer:momentum, conditions: [{type: greater, compare_value: 0.5}]}
      optimizer:momentum:
        type: float
        settings: {name: momentum, low: 0, high: 1}
        dependency:
          type: optimize_iff
          on: optimizer.name
          conditions: [{type: equal, compare_value: sgd}]
      optimizer:name: {type: categorical, settings: {name: opt, choices: [adam, sgd]}}
"""


def drawn(space: SearchSpace, number: int = 60) -> list[tuple[optuna.Trial, dict[str, Any]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [(trial, space.suggest(trial)) for trial in (study.ask() for _ in range(number))]


def test_a_search_space_inside_the_model(files: Files) -> None:
    config = files.write(model=TRANSFORMER).load()
    space = config.space
    for trial, values in drawn(space, 20):
        model = space.assign(config.conf(), values)["model"]
        heads, dim, units = model["num_transformer_heads"], model["dim"], model["layers"][0]["units"]
        assert heads in (2, 4, 6, 8)
        assert dim == trial.params["model:dim"] * heads
        assert units in (8, 16)
        assert space.values(trial.params) == values


def test_the_snapshot_keeps_the_space_of_the_model(files: Files) -> None:
    config = files.write(SGD, model=TRANSFORMER).load()
    config.write_snapshot()
    assert load_snapshot(config.paths) == config
    assert set(config.space.by_key) == {
        "optimizer:nesterov", "optimizer:momentum", "optimizer:name",
        "model:num_transformer_heads", "model:dim", "model:layers:0:units",
    }  # fmt: skip


def test_conditional_parameters_are_left_out_along_a_chain(files: Files) -> None:
    config = files.write(SGD, model=TRANSFORMER).load()
    space = config.space
    seen = set()
    for trial, values in drawn(space):
        conf = space.assign(config.conf(), values)["optimizer"]
        keys = {"name"}
        if conf["name"] == "sgd":
            keys.add("momentum")
            keys |= {"nesterov"} if conf["momentum"] > 0.5 else set()
        assert set(conf) == keys
        assert {"optimizer:" + key for key in keys} == {p.key for p in space.parameters if p.name in values} - {
            "model:num_transformer_heads", "model:dim", "model:layers:0:units",
        }  # fmt: skip
        assert space.values(trial.params) == values
        seen.add(frozenset(keys))
    assert len(seen) == 3


def test_otherwise_takes_the_place_of_what_is_not_searched(files: Files) -> None:
    text = SGD.replace("compare_value: sgd}]", "compare_value: sgd}]\n          otherwise: 0.9")
    config = files.write(text, model=TRANSFORMER).load()
    space = config.space
    for trial, values in drawn(space, 20):
        conf = space.assign(config.conf(), values)["optimizer"]
        if conf["name"] == "adam":
            assert conf["momentum"] == 0.9
            assert "momentum" not in trial.params
            assert "nesterov" in conf


@pytest.mark.parametrize(
    ("condition", "value", "active"),
    [
        ("{type: equal, compare_value: 5}", 5, True),
        ("{type: not_equal, compare_value: 5}", 5, False),
        ("{type: in, compare_value: [4, 5]}", 5, True),
        ("{type: less, compare_value: 5}", 5, False),
        ("{type: less_or_equal, compare_value: 5}", 5, True),
        ("{type: greater, compare_value: 5}", 5, False),
        ("{type: greater_or_equal, compare_value: 5}", 5, True),
        ("{type: less, compare_value: text}", 5, False),
        ("{type: greater, compare_value: 1}, {type: less, compare_value: 3}", 5, False),
    ],
)
def test_conditions_on_a_fixed_value(files: Files, condition: str, value: int, active: bool) -> None:
    config = files.write(
        f"""
        parameters:
          x:
            type: int
            settings: {{low: 1, high: 2}}
            dependency: {{type: optimize_iff, on: depth, conditions: [{condition}]}}
        """,
        model=f"depth: {value}\nx: 0",
    ).load()
    space = config.space
    ((_, values),) = drawn(space, 1)
    assert ("x" in values) == active
    assert ("x" in space.assign(config.conf(), values)) == active


def test_a_dependency_may_be_named_by_its_kind_and_there_may_be_several(files: Files) -> None:
    config = files.write(
        """
        parameters:
          x: {type: int, settings: {low: 1, high: 1}, dependency: {multiply: {on: scale}}}
          y:
            type: int
            settings: {low: 1, high: 1}
            dependency:
              - {type: multiply, on: x}
              - {type: multiply, on: model.scale}
              - {type: optimize_iff, on: x, conditions: [{type: equal, compare_value: 3}]}
        """,
        model="scale: 3",
    ).load()
    ((_, values),) = drawn(config.space, 1)
    assert values == {"x": 3, "y": 9}


def test_what_is_left_out_of_a_list_does_not_move_the_rest(files: Files) -> None:
    one = "{hyper_opt: {suggest: int, params: {low: 7, high: 7}%s}}"
    condition = ", dependency: {type: optimize_iff, on: on_off, conditions: [{type: equal, compare_value: 1}]}"
    layers = [one % condition, "1", one % condition, one % "", "2"]
    config = files.write(model=f"on_off: 0\nlayers: [{', '.join(layers)}]").load()
    space = config.space
    ((_, values),) = drawn(space, 1)
    assert space.assign(config.conf(), values)["layers"] == [1, 7, 2]


@pytest.mark.parametrize(
    ("dependency", "where", "words"),
    [
        ("{type: times, on: scale}", "type", "multiply, optimize_iff"),
        ("{type: multiply}", "on", "not a path"),
        ("{type: multiply, on: scael}", "on", "did you mean: scale"),
        ("{type: multiply, on: name}", "on", "not a number"),
        ("{type: multiply, on: letters}", "on", "not all numbers"),
        ("{type: multiply, on: scale, factor: 2}", "factor", "unknown key"),
        ("{type: optimize_iff, on: scale}", "conditions", "not a list"),
        ("{type: optimize_iff, on: scale, conditions: [5]}", "conditions: 0", "not a condition"),
        ("{type: optimize_iff, on: scale, conditions: [{type: equals, compare_value: 1}]}", "conditions: 0: type",
         "did you mean: equal"),
        ("{type: optimize_iff, on: scale, conditions: [{type: in, compare_value: 1}]}", "conditions: 0: compare_value",
         "not a list"),
        ("5", "type", "not a kind of dependency"),
    ],
)  # fmt: skip
def test_mistakes(files: Files, dependency: str, where: str, words: str) -> None:
    found = files.write(
        f"""
        parameters:
          x: {{type: int, settings: {{low: 1, high: 2}}, dependency: {dependency}}}
          letters: {{type: categorical, settings: {{choices: [a, b]}}}}
        """,
        model="scale: 3\nname: adam",
    ).problems()
    assert words in str(found[f"optuna: parameters: x: dependency: {where}"])


def test_a_circle_is_printed(files: Files) -> None:
    names = itertools.pairwise("abca")
    lines = "\n".join(
        f"  {x}: {{type: int, settings: {{low: 1, high: 2}}, dependency: {{type: multiply, on: {y}}}}}"
        for x, y in names
    )
    found = files.write(f"parameters:\n{lines}").problems()["optuna: parameters"]
    assert found.found.split(": ")[1] in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c")


def test_the_grid_sampler_cannot_take_conditions(files: Files) -> None:
    found = files.write(SGD + "    sampler: {type: GridSampler, search_space: {opt: [adam]}}\n").problems()
    assert "GridSampler cannot" in found["optuna: parameters: optimizer:momentum: dependency"].found


@pytest.mark.parametrize(
    ("model", "where", "words"),
    [
        (
            "x: {hyper_opt: {suggest: itn, params: {low: 1, high: 2}}}",
            "model: x: hyper_opt: suggest",
            "did you mean: int",
        ),
        ("x: {hyper_opt: {suggest: int, params: {low: 3, high: 2}}}", "model: x: hyper_opt: params: low", "greater"),
        ("x: {hyper_opt: {suggest: int, params: {low: 3}}}", "model: x: hyper_opt: params: high", "is missing"),
        ("x: {hyper_opt: {suggest: int}}", "model: x: hyper_opt: params", "is missing"),
        ("x: {hyper_opt: {suggest: int, parmas: {}}}", "model: x: hyper_opt: parmas", "did you mean: params"),
        ("x: {hyper_opt: 5}", "model: x: hyper_opt", "not a mapping"),
        ("x: {hyper_opt: {suggest: int, params: 5}}", "model: x: hyper_opt: params", "not a mapping"),
        ("x: {hyper_opt: {suggest: constant, params: {value: 5}}, y: 1}", "model: x: y", "stands beside"),
        ("hyper_opt: {suggest: constant, params: {value: 5}}", "model: hyper_opt", "at the top"),
    ],
)
def test_mistakes_inside_the_model(files: Files, model: str, where: str, words: str) -> None:
    assert words in str(files.write(model=model).problems()[where])


def test_one_path_in_both_files(files: Files) -> None:
    found = files.write(
        "parameters: {x: {type: int, settings: {low: 1, high: 2}}}",
        model="x: {hyper_opt: {suggest: int, params: {low: 1, high: 2}}}",
    ).problems()
    assert "is searched twice: optuna: parameters: x has it too" in found["model: x: hyper_opt"].found
