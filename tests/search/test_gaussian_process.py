"""The Gaussian process of the default sampler: on what trials end with, and on what they report before."""

from __future__ import annotations

from collections.abc import Sequence
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

from aimlhpo.search.gaussian_process import ProcessModel, _Process
from aimlhpo.search.rung_samplers import RungGPSampler, RungSampler, RungTPESampler
from aimlhpo.search.rungs import ASHA
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


def suggest(
    space: dict[str, BaseDistribution],
    finished: Sequence[dict[str, Any]],
    losses: Sequence[float] | np.ndarray[Any, Any],
    running: Sequence[dict[str, Any]],
    random: np.random.RandomState,
) -> dict[str, Any]:
    """What is suggested where trials have final values alone."""
    reached = np.append(losses, [np.nan] * len(running))[:, None]
    runs = [False] * len(finished) + [True] * len(running)
    return ProcessModel().suggest(space, [*finished, *running].__getitem__, reached, runs, random)


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
    modelled: list[int] = []
    usual = _Process.condition

    def condition(self: _Process, rows: Any, *arguments: Any) -> None:
        modelled.append(len(rows))
        usual(self, rows, *arguments)

    monkeypatch.setattr(_Process, "condition", condition)
    drawn = [study.ask(PLANE).params for _ in range(5)]
    assert modelled
    assert max(modelled) <= 80 + 5  # and those that run
    assert loss(min(drawn, key=loss)) <= 10 * study.best_value


# --- on what trials report ---

LINE: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}


def slow_starter(x: float, epoch: int) -> float:
    """Best at 0.8 in the end, and at 0.3 after the first epochs, as where a small step size learns slowly."""
    return (x - 0.8) ** 2 + (x - 0.3) ** 2 * 4 * max(0, 8 - epoch) + 2 / (epoch + 1)


def reporting_study(sampler: optuna.samplers.BaseSampler, *, sign: float = 1.0) -> optuna.Study:
    """Eight trials that were trained to the end, and sixteen that were stopped after the first or the third epoch."""
    direction = "minimize" if sign > 0 else "maximize"
    study = optuna.create_study(study_name="s", sampler=sampler, pruner=ASHA(9), direction=direction)
    for place, x in enumerate(np.random.RandomState(0).permutation(24) / 24):
        epochs = 9 if place < 8 else (3 if place % 4 == 0 else 1)
        add(study, float(x), [sign * slow_starter(x, epoch) for epoch in range(epochs)])
    return study


def add(study: optuna.Study, x: float, reports: Sequence[float], end: float | None = None) -> None:
    """A trial with these reports; complete where it has an `end` or nine reports, otherwise pruned."""
    if len(reports) == 9:
        end = reports[-1]
    state = TrialState.PRUNED if end is None else TrialState.COMPLETE
    known = dict(enumerate(reports))
    study.add_trial(
        create_trial(state=state, params={"x": x}, distributions=LINE, value=end, intermediate_values=known)
    )


def drawn_from(study: optuna.Study, count: int, *, of_tpe: bool = False) -> list[float]:
    """What is suggested for trials that all run, by the process, or for those between them, by TPE."""
    drawn = []
    while len(drawn) < count:
        reseed(study.sampler, len(study.trials))
        trial = study.ask(LINE)
        if trial.number % 2 == of_tpe:
            drawn.append(trial.params["x"])
        else:
            study.tell(trial, state=TrialState.FAIL)
    return drawn


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_learns_which_configurations_begin_slowly(sign: float) -> None:
    """TPE looks at the rung that enough trials have reached, and suggests what is good there."""
    good = {
        type(sampler): sum(0.65 < x < 0.95 for x in drawn_from(reporting_study(sampler, sign=sign), 5))
        for sampler in (RungGPSampler(seed=1), RungTPESampler(seed=1))
    }
    assert good[RungGPSampler] >= 4
    assert good[RungTPESampler] <= 2


def test_a_sampler_that_begins_anew_suggests_the_same() -> None:
    """As after the sampling process was killed: what one has suggested and found before changes nothing."""
    study = reporting_study(RungGPSampler(seed=1))
    for x in drawn_from(study, 12):
        add(study, x, [slow_starter(x, epoch) for epoch in range(9)])
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    anew = optuna.create_study(study_name="s", sampler=RungGPSampler(seed=5), pruner=ASHA(9))
    anew.add_trials(study.trials)
    assert drawn_from(study, 2) == drawn_from(anew, 2)


def test_every_other_trial_is_suggested_by_tpe() -> None:
    studies = [reporting_study(RungGPSampler(seed=1)), reporting_study(RungTPESampler(seed=1))]
    assert drawn_from(studies[0], 3, of_tpe=True) == drawn_from(studies[1], 3, of_tpe=True)


def test_what_running_trials_have_reported_counts_where_there_are_several() -> None:
    """Three of them have found a good place where all that ended are alike."""
    study = optuna.create_study(study_name="s", sampler=RungGPSampler(seed=1), pruner=ASHA(9))
    for x in np.linspace(0, 1, 9):
        add(study, float(x), [1 - 0.01 * x] * 9)
    for x in (0.28, 0.3, 0.32):
        study.enqueue_trial({"x": x})
        trial = study.ask(LINE)
        for epoch in range(3):
            trial.report(0.1, epoch)
    assert sum(0.15 < x < 0.45 for x in drawn_from(study, 4)) >= 3


def test_reports_that_are_not_numbers_do_not_end_the_search() -> None:
    study = reporting_study(RungGPSampler(seed=1))
    for value in (float("nan"), float("inf")):
        add(study, 0.1, [value] * 3)
        add(study, 0.1, [value] * 3, end=1.0)
    assert all(0 <= x <= 1 for x in drawn_from(study, 3))


def test_it_keeps_away_from_what_does_not_fit_into_memory() -> None:
    study = reporting_study(RungGPSampler(seed=1))
    failed = {RECORD: {"cause": "out of memory", INFEASIBLE: True}}
    for x in (0.72, 0.76, 0.8, 0.84, 0.88):
        trial = create_trial(state=TrialState.FAIL, system_attrs=failed, params={"x": x}, distributions=LINE)
        study.add_trial(trial)
    assert not any(0.74 < x < 0.86 for x in drawn_from(study, 4))


def test_it_is_tpe_where_parameters_are_conditional() -> None:
    """With `group`, as the default has it there."""
    suggested = []
    for sampler in (RungGPSampler(seed=1, group=True), RungTPESampler(seed=1, group=True)):
        suggested.append(drawn_from(reporting_study(sampler), 3))
    assert suggested[0] == suggested[1]


@pytest.mark.parametrize("reports", [{}, {0: 1.0}])
def test_it_begins_where_nothing_has_ended(reports: dict[int, float]) -> None:
    study = optuna.create_study(study_name="s", sampler=RungGPSampler(seed=1), pruner=ASHA())
    for _ in range(6):
        trial = study.ask(LINE)
        for epoch, value in reports.items():
            trial.report(value, epoch)
    assert len({trial.params["x"] for trial in study.trials}) == 6
