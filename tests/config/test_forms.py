"""The forms that other tools' users know, exactly as they write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aimlhpo.space.search_space import grid_of

if TYPE_CHECKING:
    from tests.files import Files

INSIDE = """
    model:
      num_transformer_heads: {hyper_opt: {suggest: int, params: {low: 2, high: 8, step: 2}}}
      dim:
        hyper_opt:
          suggest: int
          params: {low: 2, high: 8, step: 2}
          dependency: {multiply: {on: "model.num_transformer_heads"}}
      depth:
        hyper_opt:
          suggest: categorical
          params: {choices: [4, 5, 6]}
      extra:
        - hyper_opt:
            suggest: loguniform
            params: {low: 1e-5, high: 1e-1}
            dependency: {optimize_iff: {on: "model.depth", conditions: [{type: equal, compare_value: 5}]}}
"""


def test_objects_in_the_model_with_dependencies(files: Files) -> None:
    space = files.write(model=INSIDE).load().space
    found = {parameter.key: parameter for parameter in space.parameters}
    assert set(found) == {"model:num_transformer_heads", "model:dim", "model:depth", "model:extra:0"}
    assert found["model:dim"].finish(4, {"model:num_transformer_heads": 2}) == 8
    assert found["model:extra:0"].active({"model:depth": 5})
    assert not found["model:extra:0"].active({"model:depth": 4})


@pytest.mark.parametrize("suggest", ["discrete_uniform", "float", "int", "loguniform", "uniform"])
def test_every_suggest(files: Files, suggest: str) -> None:
    params = "{low: 2, high: 8, q: 2}" if suggest == "discrete_uniform" else "{low: 2, high: 8}"
    config = files.write(model=f"x: {{hyper_opt: {{suggest: {suggest}, params: {params}}}}}\n").load()
    assert config.space.by_key["x"].type == suggest


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("interval(0.00001, 0.001)", "float"),
        ("tag(log, interval(1e-5, 1e-1))", "float"),
        ("range(1, 10, 2)", "int"),
        ("choice(adam, sgd)", "categorical"),
        ("a,b", "categorical"),
    ],
)
@pytest.mark.parametrize("path", ["optimizer.weight_decay", "optimizer:weight_decay"])
def test_sweeps_of_the_command_line(files: Files, path: str, text: str, kind: str) -> None:
    config = files.load(f"{path}={text}", "sampler.n_startup_trials=30")
    assert config.space.by_key["optimizer:weight_decay"].type == kind
    assert config.optuna.sampler is not None
    assert config.optuna.sampler.arguments == {"n_startup_trials": 30}
    assert config.model["epochs"] == 5
    assert files.load(f"{path}=[a,b]").model["optimizer"]["weight_decay"] == ["a", "b"]


def test_the_modes_of_a_grid(files: Files) -> None:
    modes = """
        n_trials: null
        parameters:
          optimizer:learning_rate: {type: logspace, settings: {base: 10, start: -3, end: -1, count: 3}}
          optimizer:weight_decay:
            type: random
            settings: {distribution: {type: loguniform, settings: {low: 1e-5, high: 1e-1}}, count: 2}
          layers:0:units: {type: multiple, settings: {values: [16, 32]}}
          layers:1:units: {type: linear, settings: {start: 8, end: 24, step: 8}}
          epochs: {type: single, settings: {value: 5}}
    """
    files.write(modes)
    files.hyperparameters.write_text(files.hyperparameters.read_text().replace("  n_trials: 4\n", ""))
    config = files.load()
    assert grid_of(config.space) is not None
    assert config.optuna.n_trials == 3 * 2 * 2 * 3
