"""Samplers that model the study see its best and its newest trials, and all that are open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import NSGAIISampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import ConfigError
from aimlhpo.search.bounded import ALL, BoundedSampler, bounded, choose, pareto_ranks
from aimlhpo.search.sampling import reseed
from tests.project import Project


def study_of(values: list[float], direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=RandomSampler(seed=0))
    for value in values:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    return study


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


@pytest.mark.parametrize(("direction", "best"), [("minimize", [3]), ("maximize", [1])])
def test_best_and_newest_are_kept(direction: str, best: list[int]) -> None:
    study = study_of([5.0, 9.0, 4.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0], direction)
    assert numbers(list(choose(study.trials, study.directions, 4))) == [*best, 6, 7, 8]


def test_infeasible_trials_are_not_among_the_best() -> None:
    study = optuna.create_study()
    for value in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        trial = study.ask()
        trial.set_constraint("memory", 1.0 if value == 0.0 else -1.0)
        study.tell(trial, value)
    assert numbers(list(choose(study.trials, study.directions, 4))) == [1, 4, 5, 6]


def test_front_of_several_metrics_is_kept() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for values in ((0.0, 5.0), (9.0, 0.0), (9.0, 0.0), (5.0, 9.0), *[(9.0, 0.0)] * 6):
        study.tell(study.ask(), values)
    assert numbers(list(choose(study.trials, study.directions, 8))) == [0, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("different", [3, 1000])
def test_pareto_ranks_are_those_of_the_definition(columns: int, different: int) -> None:
    losses = np.random.default_rng(columns).integers(0, different, (60, columns)).astype(float)
    left, fronts = set(range(60)), list[set[int]]()
    while left:
        fronts.append({n for n in left if not any(dominates(losses[other], losses[n]) for other in left)})
        left -= fronts[-1]
    expected = [next(rank for rank, front in enumerate(fronts) if number in front) for number in range(60)]
    assert pareto_ranks(losses, 60).tolist() == expected
    assert pareto_ranks(losses, 1).tolist() == [min(rank, 1) for rank in expected]


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one <= other).all() and (one < other).any())


def test_sampler_sees_what_is_open_and_no_more_than_it_should() -> None:
    seen: list[list[FrozenTrial]] = []

    class Inner(TPESampler):
        def _sample(self, study, trial, search_space):  # type: ignore[no-untyped-def]
            seen.append(study._get_trials(deepcopy=False))
            return super()._sample(study, trial, search_space)

    study = study_of([float(value) for value in range(60)])
    running = study.ask()
    study.sampler = BoundedSampler(Inner(seed=1), 20)
    study.ask().suggest_float("x", 0, 1)
    shown = [trial.number for trial in seen[0] if trial.state == TrialState.COMPLETE]
    assert shown == [0, 1, 2, 3, 4, *range(45, 60)]
    assert running.number in numbers(seen[0])


def test_study_is_read_once_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of([float(value) for value in range(30)])
    study.sampler = bounded(TPESampler(seed=0, multivariate=True, constant_liar=True))
    read, reads = study._storage.get_all_trials, list[int]()
    monkeypatch.setattr(study._storage, "get_all_trials", lambda *args, **keys: reads.append(1) or read(*args, **keys))
    trial = study.ask()
    reads.clear()
    trial.suggest_float("x", 0, 1)
    trial.suggest_float("new", 0, 1)
    assert len(reads) == 1


def test_small_study_is_sampled_as_without_a_bound() -> None:
    def values(sampler: optuna.samplers.BaseSampler) -> list[float]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.5) ** 2, n_trials=25)
        return [trial.params["x"] for trial in study.trials]

    assert values(bounded(TPESampler(seed=3))) == values(TPESampler(seed=3))


def test_seeding_reaches_the_sampler_inside() -> None:
    def value(seed: int) -> float:
        study = study_of([float(value) for value in range(12)])
        study.sampler = bounded(TPESampler())
        reseed(study.sampler, seed)
        return study.ask().suggest_float("x", 0, 1)

    assert value(1) == value(1) != value(2)


def test_samplers_with_another_idea_of_the_past_see_everything() -> None:
    sampler = NSGAIISampler()
    assert bounded(sampler, 100) is sampler
    tpe = TPESampler()
    assert bounded(tpe, ALL) is tpe
    fixed = bounded(PartialFixedSampler({"x": 0.5}, TPESampler()), 100)
    assert isinstance(fixed._base_sampler, BoundedSampler)  # type: ignore[attr-defined]
    assert str(bounded(tpe)) == "TPESampler"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sampler_sees": 5}, "optuna: sampler_sees: 5 is not a number of trials"),
        ({"sampler_sees": "most"}, "a whole number, 20 or more, or all"),
        ({"sampler_sees": 100, "sampler": "CmaEsSampler"}, "has no effect on CmaEsSampler"),
    ],
)
def test_misuse_is_told(tmp_path: Path, keys: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        _ = Project(tmp_path, **keys).config
    assert told in str(raised.value)


def test_study_runs_with_a_bound(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=30, seed=1, sampler={"type": "TPESampler"}, sampler_sees=20, storage="journal")
    project.run("--local", "2")
    assert project.states() == {"COMPLETE": 30}
