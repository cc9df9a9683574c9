"""The default sampler where trials report nothing before their end."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from aimlhpo.search.gaussian_process import suggest
from aimlhpo.search.rungs import RungSampler, RungTPESampler
from aimlhpo.search.sampling import reseed
from aimlhpo.storage.attributes import INFEASIBLE, RECORD

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "width": IntDistribution(1, 512, log=True),
    "layers": IntDistribution(2, 20, step=3),
    "dropout": FloatDistribution(0.0, 0.9, step=0.3),
    "kind": CategoricalDistribution([None, True, 1, "a"]),
}
PLANE: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def at_random(space: dict[str, BaseDistribution], count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    return [study.ask(space).params for _ in range(count)]


def loss(values: dict[str, Any]) -> float:
    return float((values["x"] - 0.3) ** 2 + (values["y"] - 0.7) ** 2)


def study_of(count: int, sampler: optuna.samplers.BaseSampler, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(study_name="s", sampler=sampler, direction=direction)
    sign = 1 if direction == "minimize" else -1
    for values in at_random(PLANE, count):
        study.add_trial(create_trial(params=values, distributions=PLANE, value=sign * loss(values)))
    return study


def test_every_suggestion_is_a_value_of_its_parameter() -> None:
    known = at_random(SPACE, 30)
    random = np.random.RandomState(0)
    for _ in range(20):
        values = suggest(SPACE, known, random.random_sample(len(known)), known[:5], random)
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(values[name])), (name, values[name])
        assert type(values["width"]) is int
        assert type(values["rate"]) is float
        assert values["kind"] in (None, True, 1, "a")


def test_every_value_of_a_stepped_range_can_be_suggested() -> None:
    """The highest one, too: 0.7 is not seven times 0.1 in binary numbers."""
    for high, step in ((0.7, 0.1), (1.4, 0.1), (0.35, 0.05)):
        space: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, high, step=step)}
        known = [{"x": x} for x in np.arange(0, high / 2, step)]
        losses = np.array([-values["x"] for values in known])
        for _ in range(10):
            value = suggest(space, known, losses, [], np.random.RandomState(0))["x"]
            assert space["x"]._contains(value)
            known, losses = [*known, {"x": value}], np.append(losses, -value)
        assert any(abs(values["x"] - high) < 1e-9 for values in known)


def test_a_parameter_that_only_some_trials_have_does_not_end_the_search() -> None:
    """Here after a trial that ran out of memory, which samplers are shown as a bad one."""
    study = study_of(6, RungSampler(seed=1))
    failed = {RECORD: {"cause": "out of memory", INFEASIBLE: True}}
    both = {"params": {"x": 0.9, "y": 0.9}, "distributions": PLANE}
    study.add_trial(create_trial(state=TrialState.FAIL, system_attrs=failed, **both))
    for number in range(6):
        trial = study.ask()
        values = [trial.suggest_float(name, 0, 1) for name in (PLANE if number % 2 else ["x"])]
        study.tell(trial, sum(values))
    assert len(study.trials) == 13


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_soon_finds_the_best_place_of_a_smooth_function(direction: str) -> None:
    study = study_of(10, RungSampler(seed=1), direction)
    sign = 1 if direction == "minimize" else -1
    for number in range(15):
        reseed(study.sampler, number)
        trial = study.ask(PLANE)
        study.tell(trial, sign * loss(trial.params))
    assert loss(study.best_params) < 1e-3
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 25


def test_trials_that_run_are_not_suggested_again() -> None:
    study = study_of(20, RungSampler(seed=1))
    open_ones = []
    for number in range(8):
        reseed(study.sampler, number)
        open_ones.append(study.ask(PLANE).params)
    assert len({tuple(values.values()) for values in open_ones}) == 8
    assert np.median([loss(values) for values in open_ones]) < np.median([loss(v) for v in at_random(PLANE, 50)])


def test_a_trial_that_runs_makes_its_neighbourhood_less_promising() -> None:
    """Two equally good places: what is suggested while a trial runs at one of them is the other one."""
    line: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}
    known = [{"x": x} for x in np.linspace(0, 1, 12)]
    losses = np.array([min(abs(values["x"] - 0.2), abs(values["x"] - 0.8)) for values in known])
    suggested: list[dict[str, Any]] = []
    for _ in range(4):
        suggested.append(suggest(line, known, losses, suggested, np.random.RandomState(0)))
    assert {round(values["x"]) for values in suggested} == {0, 1}


def test_a_seed_decides_what_is_suggested() -> None:
    study = study_of(20, RungSampler(seed=1))
    suggested = []
    for seed in (5, 5, 6):
        reseed(study.sampler, seed)
        trial = study.ask(PLANE)
        suggested.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    assert suggested[0] == suggested[1] != suggested[2]


def test_losses_may_be_equal_or_infinite() -> None:
    known = at_random(PLANE, 12)
    random = np.random.RandomState(0)
    for losses in ([1.0] * 12, [np.inf] * 6 + [1.0] * 6, [*map(float, range(11)), np.inf]):
        assert suggest(PLANE, known, np.array(losses), [], random).keys() == PLANE.keys()
    assert suggest(PLANE, [known[0]] * 12, np.arange(12.0), [known[0]], random) != known[0]


def test_it_is_tpe_as_soon_as_trials_report() -> None:
    suggested = {}
    for sampler in (RungSampler(seed=1), RungTPESampler(seed=1)):
        study = study_of(20, sampler)
        study.add_trial(
            create_trial(params=at_random(PLANE, 1)[0], distributions=PLANE, value=1.0, intermediate_values={0: 1.0})
        )
        reseed(study.sampler, 3)
        suggested[str(sampler)] = study.ask(PLANE).params
    assert suggested["RungSampler"] == suggested["RungTPESampler"]


def test_parameters_whose_range_has_changed_are_still_learned() -> None:
    """A space that has changed since the first trials leaves nothing that all trials have."""
    study = study_of(40, RungSampler(seed=1))
    wider: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 2.0), "y": FloatDistribution(0.0, 2.0)}
    for name, known in wider.items():
        check_distribution_compatibility(PLANE[name], known)
    drawn = [study.ask(wider).params for _ in range(20)]
    assert np.mean([values["x"] < 1 and values["y"] < 1 for values in drawn]) > 0.7


def test_a_bounded_part_of_a_large_study_is_modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(1500, RungSampler(seed=1))
    modelled: list[float] = []
    monkeypatch.setattr(
        "aimlhpo.search.gaussian_process.suggest",
        lambda space, finished, losses, running, random: modelled.extend(losses) or finished[0],
    )
    study.ask(PLANE)
    assert len(modelled) <= 100
    assert min(modelled) == study.best_value
