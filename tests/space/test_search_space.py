"""Parameters of the YAML as Optuna's distributions, and values as the user wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import indent
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from aimlhpo.check.settings import load_config
from aimlhpo.config.schema import Config
from aimlhpo.errors import ConfigError

MODEL = "optimizer: {learning_rate: 0.1, name: adam}\nlayers: [{units: 1}]\nepochs: 5\n"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(parameters: str, more: str = "", model: str = MODEL) -> Config:
        above = f"optuna:\n  name: s\n  n_trials: 1\n  save_path: {tmp_path}\n{more}  parameters:\n"
        (tmp_path / "h.yml").write_text(above + indent(parameters, "    "))
        (tmp_path / "m.yml").write_text(model)
        return load_config(tmp_path / "h.yml", tmp_path / "m.yml")

    return load


@pytest.mark.parametrize(
    ("kind", "settings", "distribution"),
    [
        ("float", "{low: 0, high: 1}", FloatDistribution(0, 1)),
        ("float", "{low: 1e-5, high: 1, log: true}", FloatDistribution(1e-5, 1, log=True)),
        ("float", "{low: 0, high: 1, step: 0.1}", FloatDistribution(0, 1, step=0.1)),
        ("uniform", "{low: 0, high: 1}", FloatDistribution(0, 1)),
        ("loguniform", "{low: 1e-5, high: 1e-1}", FloatDistribution(1e-5, 1e-1, log=True)),
        ("discrete_uniform", "{low: 0, high: 1, q: 0.25}", FloatDistribution(0, 1, step=0.25)),
        ("int", "{low: 1, high: 8}", IntDistribution(1, 8)),
        ("int", "{low: 1, high: 8, step: 2}", IntDistribution(1, 7, step=2)),
        ("int", "{low: 1, high: 1e3, log: true}", IntDistribution(1, 1000, log=True)),
        ("log_int", "{low: 1, high: 64}", IntDistribution(1, 64, log=True)),
        ("categorical", "{choices: [a, 3, 2.5, true, null]}", CategoricalDistribution(["a", 3, 2.5, True, None])),
    ],
)
def test_distributions(load: Any, kind: str, settings: str, distribution: BaseDistribution) -> None:
    space = load(f"x: {{type: {kind}, settings: {settings}}}").space
    assert space.distributions == {"x": distribution}


def test_places_and_names(load: Any) -> None:
    space = load(
        "optimizer:learning_rate: {type: float, settings: {name: lr, low: 0, high: 1}}\n"
        "layers:0:units: {type: int, settings: {low: 1, high: 8}}\n"
        "epochs: {type: int, settings: {low: 1, high: 8}}\n"
        "num_dense: {type: int, settings: {low: 1, high: 8}}\n"
        "other:thing: {type: int, settings: {low: 1, high: 8}, substitute: false}\n"
    ).space
    assert {p.name: p.path for p in space.parameters} == {
        "lr": ("optimizer", "learning_rate"), "layers:0:units": ("layers", "0", "units"), "epochs": ("epochs",),
        "num_dense": None, "other:thing": None,
    }  # fmt: skip


def test_suggested_values_go_into_a_copy_of_the_model(load: Any) -> None:
    config = load(
        "optimizer:learning_rate: {type: float, settings: {name: lr, low: 0.5, high: 1}}\n"
        "layers:0:units: {type: int, settings: {name: units, low: 8, high: 8}}\n"
        "num_dense: {type: int, settings: {low: 3, high: 3}}\n"
    )
    space = config.space
    trial = optuna.create_study().ask()
    values = space.suggest(trial)
    assert list(values) == ["lr", "units", "num_dense"]
    conf = space.assign(config.conf(), values)
    assert conf["optimizer"] == {"learning_rate": values["lr"], "name": "adam"}
    assert conf["layers"] == [{"units": 8}]
    assert "num_dense" not in conf
    assert config.model["layers"] == [{"units": 1}]
    assert space.values(trial.params) == values


def test_choices_that_are_no_scalars_come_back_as_they_were(load: Any) -> None:
    space = load("dims: {type: categorical, settings: {choices: [[1, 2], '[1, 2]', {a: 1}, null, text]}}").space
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"dims": space.distributions["dims"].choices}))  # type: ignore[attr-defined]
    seen: list[Any] = []

    def objective(trial: optuna.Trial) -> float:
        seen.append(space.suggest(trial)["dims"])
        return 0.0

    study.optimize(objective)
    assert sorted(map(json.dumps, seen)) == sorted(map(json.dumps, [[1, 2], "[1, 2]", {"a": 1}, None, "text"]))
    assert [space.values(trial.params)["dims"] for trial in study.trials] == seen


def test_enqueued_values_reach_the_trial(load: Any) -> None:
    config = load(
        "layers:0:units: {type: int, settings: {name: units, low: 1, high: 8}}\n"
        "dims: {type: categorical, settings: {choices: [[1, 2], [3]]}}\n"
        "size: {type: finrange, settings: {low: 0, high: 1, size: 5}}\n"
        "width: {type: log_ordinal, settings: {choices: [1, 8, 64]}}\n",
        more="  enqueue: [{'layers:0:units': 7, dims: [3], size: 1, width: 64}]\n",
    )
    space, study = config.space, optuna.create_study()
    study.enqueue_trial(space.encode(config.enqueued()[0]))
    assert space.suggest(study.ask()) == {"units": 7, "dims": [3], "size": 1, "width": 64}


@pytest.mark.parametrize(
    ("kind", "settings", "values"),
    [
        ("ordinal", "{choices: [1, 2.5, 10]}", [1, 2.5, 10]),
        ("log_ordinal", "{choices: [1, 10, 100]}", [1, 10, 100]),
        ("log_ordinal", "{choices: [4]}", [4]),
        ("finrange", "{low: 0, high: 1, size: 3}", [0.0, 0.5, 1.0]),
        ("finrange", "{low: 1, high: 10, size: 4, cast_int: true}", [1, 4, 7, 10]),
        ("logfinrange", "{low: 1, high: 1000, size: 4, cast_int: true}", [1, 10, 100, 1000]),
        ("constant", "{value: [1, 2]}", [[1, 2]]),
    ],
)
def test_finite_kinds_give_every_value_and_no_other(load: Any, kind: str, settings: str, values: list[Any]) -> None:
    space = load(f"x: {{type: {kind}, settings: {settings}}}").space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = [space.suggest(study.ask())["x"] for _ in range(60)]
    assert sorted({json.dumps(value) for value in seen}) == sorted(json.dumps(value) for value in values)


def test_a_log_ordinal_takes_the_nearest_on_a_logarithmic_scale(load: Any) -> None:
    space = load("x: {type: log_ordinal, settings: {choices: [1, 10, 100]}}").space
    assert [space.values({"x": stored})["x"] for stored in (0.5, 3, 4, 30, 40, 200)] == [1, 1, 10, 10, 100, 100]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("log_int", "{low: 0, high: 5}", "low >= 1"),
        ("ordinal", "{choices: [1, 3, 2]}", "not in order"),
        ("ordinal", "{choices: [a, b]}", "'a' is not a number"),
        ("log_ordinal", "{choices: [0, 1]}", "logarithmic"),
        ("finrange", "{low: 0, high: 1}", "is missing"),
        ("finrange", "{low: 0, high: 1, size: 1}", "too small"),
        ("finrange", "{low: 0, high: 1, size: 1e9}", "too large"),
        ("finrange", "{low: 0, high: 1, size: 5, cast_int: true}", "do not fit"),
        ("logfinrange", "{low: 0, high: 1, size: 5}", "logarithmic"),
        ("logfinrange", "{low: 1, high: 4, size: 9, cast_int: true}", "do not fit"),
        ("constant", "{}", "is missing"),
    ],
)
def test_mistakes_in_finite_kinds(load: Any, kind: str, settings: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(f"x: {{type: {kind}, settings: {settings}}}")


def test_the_fingerprint_tells_ranges_and_choices_apart(load: Any) -> None:
    one = load("x: {type: int, settings: {low: 1, high: 8}}").space.fingerprint()
    other = load("x: {type: int, settings: {low: 1, high: 9}}").space.fingerprint()
    assert list(one) == ["x"]
    assert one != other
