"""Rungs that are learned from a study's own trials, and the sampler that looks at one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from aimlhpo.search.bounded import MOST
from aimlhpo.search.rung_samplers import RungGPSampler, RungSampler, RungTPESampler
from aimlhpo.search.rungs import ASHA, WHOLE, Ladder, LearnedLadder, RungTable, correlation

X = FloatDistribution(0.0, 1.0)
Curve = Callable[[float, int], float]


def falling(x: float, step: int) -> float:
    return x + 1 / (1 + step)


def study_of(xs: list[float], curve: Curve = falling, steps: int = 27, first: int = 0) -> optuna.Study:
    study = optuna.create_study(study_name="s", pruner=ASHA())
    for x in xs:
        reports = {first + step: curve(x, step) for step in range(steps)}
        value = curve(x, steps - 1)
        study.add_trial(create_trial(params={"x": x}, distributions={"x": X}, intermediate_values=reports, value=value))
    return study


def running(study: optuna.Study, x: float, reports: list[float], state: TrialState = TrialState.RUNNING) -> int:
    """Add a trial that has reported; its number."""
    open_trial = create_trial(state=TrialState.RUNNING, params={"x": x}, distributions={"x": X})
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=open_trial)
    for step, value in enumerate(reports):
        study._storage.set_trial_intermediate_value(trial_id, step, value)
    if state != TrialState.RUNNING:
        study._storage.set_trial_state_values(trial_id, state=state)
    return study._storage.get_trial_number_from_id(trial_id)


def resources(study: optuna.Study) -> list[int]:
    return LearnedLadder(3).of("s", study.trials).resources


def pruned(study: optuna.Study, number: int) -> bool:
    return study.pruner.prune(study, study.trials[number])


XS = [0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.6]


def test_the_longest_complete_trial_tells_where_the_rungs_are() -> None:
    assert resources(study_of(XS)) == [1, 3, 9]
    assert resources(study_of(XS, steps=1000)) == [13, 39, 117, 351]
    assert resources(study_of(XS, steps=2)) == [1]
    assert resources(study_of(XS, steps=1)) == []
    ladder = LearnedLadder(3).of("s", study_of(XS, first=1).trials)
    assert [ladder.step(resource) for resource in ladder.resources] == [1, 3, 9]


def test_until_a_trial_is_complete_the_rungs_go_on_without_end() -> None:
    study = optuna.create_study(study_name="s", pruner=ASHA())
    for _ in range(WHOLE):
        running(study, 0.1, [5.0] * 9)
    assert resources(study)[:5] == [1, 3, 9, 27, 81]
    assert pruned(study, running(study, 0.2, [6.0] * 9))
    assert not pruned(study, running(study, 0.2, [4.0] * 9))


def test_the_first_trials_are_trained_to_the_end() -> None:
    study = optuna.create_study(study_name="s", pruner=ASHA())
    for value in range(WHOLE + 1):
        running(study, 0.1, [float(value)])
    assert [pruned(study, number) for number in range(WHOLE + 1)] == [*[False] * WHOLE, True]


def test_nothing_is_pruned_where_curves_cross_or_reports_say_nothing_about_the_end() -> None:
    crossing = study_of(XS, lambda x, step: x if step > 20 else -x)
    assert resources(crossing) == []
    assert not pruned(crossing, running(crossing, 0.1, [9.0] * 9))
    until_a_third = study_of(XS, lambda x, step: x if step >= 8 else -x)
    assert resources(until_a_third) == [9]
    assert resources(study_of(XS, lambda x, step: x if step == 26 else float("nan"))) == []


def test_objectives_that_never_report_have_no_rungs() -> None:
    study = optuna.create_study(study_name="s", pruner=ASHA())
    for x in XS:
        study.add_trial(create_trial(params={"x": x}, distributions={"x": X}, value=x))
    assert not pruned(study, 0)
    shown = RungTPESampler()._view(study).get_trials()
    assert [trial.value for trial in shown] == XS


def test_what_trials_have_reached_is_the_same_however_often_it_was_read() -> None:
    random = np.random.RandomState(0)
    study, ladder = study_of([]), Ladder(1, 27, 3)
    often = RungTable()
    open_trials: list[int] = []
    for _ in range(300):
        number = random.choice(open_trials) if open_trials and random.rand() < 0.8 else running(study, 0.5, [])
        trial_id = study.trials[number]._trial_id
        reported = len(study.trials[number].intermediate_values)
        study._storage.set_trial_intermediate_value(trial_id, reported, random.choice([random.rand(), np.nan]))
        if random.rand() < 0.3:
            state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[random.randint(3)]
            study._storage.set_trial_state_values(trial_id, state, [random.rand()] if state == state.COMPLETE else None)
        open_trials = [trial.number for trial in study.trials if trial.state == TrialState.RUNNING]
        if random.rand() < 0.5:
            often.read(study.study_name, ladder, study.trials)
            once = RungTable()
            once.read(study.study_name, ladder, study.trials)
            for column in ("values", "reached", "failed"):
                np.testing.assert_array_equal(often.rows[column], once.rows[column])
            assert often.has_reports == once.has_reports
    often.read(study.study_name, ladder, study.trials)
    assert len(study.trials) > 40
    assert often.rows["reached"][:, 2].tolist() == [len(trial.intermediate_values) >= 9 for trial in study.trials]


def test_a_pruner_may_serve_several_studies() -> None:
    learning = ASHA()
    lengths = {f"of {steps} steps": study_of(XS, steps=steps).trials for steps in (27, 3, 27)}
    found = {name: learning.ladder_of(name, trials).resources for name, trials in lengths.items()}
    assert found == {"of 27 steps": [1, 3, 9], "of 3 steps": [1]}
    pruner = ASHA(max_resource=27)
    for name, values in ("first", [1.0, 2.0, 3.0]), ("second", [3.0, 2.0, 1.0, math.nan]):
        study = optuna.create_study(study_name=name, pruner=pruner)
        numbers = [running(study, 0.5, [value]) for value in values]
        assert [pruned(study, number) for number in numbers] == [value != 1.0 for value in values]


def test_rank_correlation() -> None:
    assert correlation([(1, 10), (2, 20), (3, 30)]) == 1
    assert correlation([(1, 30), (2, 20), (3, 10)]) == -1
    assert correlation([(1, 10), (2, 30), (3, 20)]) == pytest.approx(1 / 3)
    assert correlation([]) == 0


def test_the_sampler_takes_every_trial_with_its_value_at_the_highest_rung_with_enough_results() -> None:
    study = study_of([0.9, 0.1])
    study.pruner = ASHA(max_resource=27)
    stopped = running(study, 0.4, [3.0, 2.0, 2.5], TrialState.PRUNED)
    further = running(study, 0.5, [1.5] * 5)
    begun = running(study, 0.6, [1.0])
    running(study, 0.7, [])
    seen = {trial.number: trial for trial in RungTPESampler(enough=4)._view(study).get_trials()}
    assert {number: trial.value for number, trial in seen.items() if trial.state == TrialState.COMPLETE} == {
        0: falling(0.9, 2), 1: falling(0.1, 2), stopped: 2.5, further: 1.5,
    }  # fmt: skip
    assert seen[begun].state == TrialState.RUNNING
    at_the_end = RungTPESampler(enough=2)._view(study).get_trials(states=(TrialState.COMPLETE,))
    assert [trial.value for trial in at_the_end] == [falling(0.9, 26), falling(0.1, 26)]
    assert study.trials[stopped].state == TrialState.PRUNED


@pytest.mark.parametrize("sampler", [RungTPESampler, RungGPSampler])
def test_trials_are_sampled_at_random_until_the_rungs_are_judged(sampler: type[RungSampler]) -> None:
    study = study_of([0.9, 0.1])
    first = [running(study, 0.5, [1.0] * 9) for _ in range(WHOLE - 2)]
    for place in range(12):
        running(study, place / 12, [place / 12] * 3, TrialState.PRUNED)
    study.sampler = sampler(seed=0)
    assert sampler()._view(study).get_trials() == []
    spread = [study.ask({"x": X}).params["x"] for _ in range(14)]
    assert sum(x > 0.5 for x in spread) > 3, "the best trials so far lie at 0"
    study._storage.set_trial_state_values(study.trials[first[0]]._trial_id, TrialState.COMPLETE, [1.0])
    assert len(sampler()._view(study).get_trials()) > 12


def test_where_nothing_is_reported_nothing_is_waited_for() -> None:
    study = study_of([])
    study.add_trial(create_trial(params={"x": 0.5}, distributions={"x": X}, value=1.0))
    running(study, 0.5, [])
    assert [trial.value for trial in RungTPESampler()._view(study).get_trials()] == [1.0, None]


def test_of_many_workers_the_first_trials_alone_are_sampled_at_random() -> None:
    study = study_of([])
    for place in range(40):
        running(study, place / 40, [place / 40])
    assert len(RungTPESampler()._view(study).get_trials()) == 40


def test_the_sampler_does_not_wait_for_first_trials_that_have_failed() -> None:
    study = study_of([0.9, 0.1])
    for _ in range(WHOLE - 2):
        running(study, 0.5, [1.0] * 9, TrialState.FAIL)
    running(study, 0.5, [1.0] * 9)
    assert len(RungTPESampler()._view(study).get_trials()) == 3


def test_with_one_worker_it_waits_for_the_end_of_the_running_trial() -> None:
    study = study_of([0.9])
    study.pruner = ASHA(max_resource=27)
    running(study, 0.4, [1.0])
    running(study, 0.5, [])
    seen = RungTPESampler()._view(study).get_trials()
    assert [(trial.number, trial.state) for trial in seen] == [
        (0, TrialState.COMPLETE), (1, TrialState.RUNNING), (2, TrialState.RUNNING),
    ]  # fmt: skip


def test_it_samples_where_pruned_trials_were_good() -> None:
    study = study_of([0.9])
    for place in range(40):
        x = place / 40
        running(study, x, [(x - 0.3) ** 2], TrialState.PRUNED)
    study.sampler = RungTPESampler(seed=1)
    drawn = [study.ask().suggest_float("x", 0, 1) for _ in range(20)]
    assert sum(0.1 < x < 0.5 for x in drawn) >= 15


def test_of_10_000_trials_tpe_is_shown_so_many_that_sampling_stays_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(study_name="s", pruner=ASHA())
    reports = {0: 0.5, 1: 0.4, 2: 0.3}
    study.add_trials([
        create_trial(
            state=TrialState.COMPLETE if place % 3 == 0 else TrialState.PRUNED,
            params={"x": place / 10_000}, distributions={"x": X}, intermediate_values=reports,
            value=place / 10_000 if place % 3 == 0 else None,
        )
        for place in range(10_000)
    ])  # fmt: skip
    study.sampler = RungTPESampler(seed=1)
    shown, usual = [], TPESampler.sample_relative

    def sample(self: TPESampler, study: optuna.Study, *arguments: Any) -> dict[str, Any]:
        shown.append(len(study.get_trials(deepcopy=False)))
        return usual(self, study, *arguments)

    monkeypatch.setattr(TPESampler, "sample_relative", sample)
    for _ in range(3):
        study.ask().suggest_float("x", 0, 1)
    assert len(shown) == 3
    assert all(100 < count <= MOST[TPESampler] + 3 for count in shown)  # those that run are shown, too
