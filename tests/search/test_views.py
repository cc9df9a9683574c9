"""The study as samplers see it: paused trials, and failed ones that say something."""

from __future__ import annotations

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from aimlhpo.search.bounded import bounded
from aimlhpo.search.rung_samplers import RungTPESampler
from aimlhpo.search.sampling import for_sampler
from aimlhpo.storage.attributes import INFEASIBLE, RECORD
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


def test_what_needs_too_much_memory_is_shown_as_the_worst() -> None:
    distributions = {"x": FloatDistribution(0.0, 1.0)}
    for sampler in (bounded(TPESampler(seed=0, n_startup_trials=5)), RungTPESampler(seed=0, n_startup_trials=5)):
        study = optuna.create_study(sampler=sampler)
        for place in range(40):
            x = place / 40
            record = {RECORD: {"cause": "out of memory", INFEASIBLE: True}}
            failed = {"state": TrialState.FAIL, "system_attrs": record}
            ended = failed if x > 0.5 else {"value": 1 - x}  # the more memory, the better, up to what there is
            study.add_trial(create_trial(params={"x": x}, distributions=distributions, **ended))
        drawn = [study.ask().suggest_float("x", 0, 1) for _ in range(20)]
        assert sum(x > 0.5 for x in drawn) < 8, "most are drawn from where trials fit"
        plain = optuna.create_study(sampler=TPESampler(seed=0, n_startup_trials=5))
        plain.add_trials(study.trials[:40])
        assert sum(plain.ask().suggest_float("x", 0, 1) > 0.5 for _ in range(20)) > sum(x > 0.5 for x in drawn)
