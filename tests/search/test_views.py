"""The study as samplers see it while trials are paused."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.search.samplers import for_sampler
from aimlhpo.storage.base import PAUSED


def study_with_paused(directions: int = 1) -> optuna.Study:
    study = optuna.create_study(study_name="s", directions=["minimize"] * directions)
    for paused in ({"rung": 1}, {"rung": 1, "promoted": True}, None):
        waiting = create_trial(
            state=TrialState.WAITING, system_attrs={PAUSED: paused}, intermediate_values={0: 3.0, 1: 2.0}
        )
        study._storage.create_new_trial(study._study_id, template_trial=waiting)
    return study


def test_a_paused_trial_is_a_pruned_one_with_its_last_report() -> None:
    study = study_with_paused()
    seen = for_sampler(study, pauses=True).get_trials(states=(TrialState.PRUNED,))
    assert [(trial.number, trial.value) for trial in seen] == [(0, 2.0)]
    assert {trial.state for trial in study.get_trials()} == {TrialState.WAITING}
    assert for_sampler(study, pauses=False) is study


def test_with_several_metrics_it_has_neither_value_nor_reports() -> None:
    seen = for_sampler(study_with_paused(2), pauses=True).get_trials(deepcopy=False)
    assert (seen[0].state, seen[0].values, seen[0].intermediate_values) == (TrialState.PRUNED, None, {})
    assert seen[1].intermediate_values == {0: 3.0, 1: 2.0}


def test_tpe_learns_from_paused_trials() -> None:
    study = optuna.create_study(study_name="s", sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=10))
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    for index in range(30):
        x = index / 30
        paused = create_trial(
            state=TrialState.WAITING, params={"x": x}, distributions=space,
            system_attrs={PAUSED: {"rung": 1}}, intermediate_values={0: abs(x - 0.2)},
        )  # fmt: skip
        study._storage.create_new_trial(study._study_id, template_trial=paused)
    view = for_sampler(study, pauses=True)
    drawn = []
    for _ in range(10):
        trial_id = study._storage.create_new_trial(study._study_id)
        drawn.append(optuna.trial.Trial(view, trial_id).suggest_float("x", 0.0, 1.0))
    assert sum(abs(x - 0.2) < 0.2 for x in drawn) >= 7
