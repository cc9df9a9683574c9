"""What a confirmation trains: which configurations, how often, with which seeds and which rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.requests import Claim
from aimlhpo.results.best import ranking
from aimlhpo.results.confirmation import read_confirmation
from aimlhpo.search.queues import (
    ConfirmationQueue,
    begin_confirmation,
    confirmation_config,
    confirmed_study,
    count_trainings,
    distinct,
    extended,
    find_confirmation,
    plan_of,
    seed_keys,
)
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import trial_seed
from aimlhpo.storage.trials import CONFIRMED
from tests.cli.studies import fill_study
from tests.conftest import STORAGE_KINDS
from tests.ledgers import SingleRequestLedger
from tests.project import Project


def begun(project: Project, study: optuna.Study, top: int, seeds: int) -> optuna.Study:
    config = confirmation_config(project.config, study)
    begin_confirmation(study, config, distinct(ranking(study, 100), top), seeds)
    found = find_confirmation(study)
    assert found is not None
    return found


def test_a_training_that_failed_and_is_tried_again_counts_for_its_configuration(tmp_path: Path) -> None:
    project = Project(tmp_path, max_retries=1)
    study = fill_study(project, 3)
    confirmation = begun(project, study, 2, 2)
    config = confirmation_config(project.config, study)
    ledger = SingleRequestLedger(
        confirmation,
        config.paths,
        config.optuna.n_trials,
        "here",
        Registry(config.paths.leases, 60.0),
        config.optuna.max_retries,
    )
    states = ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE"]
    for state in states:
        claim = ledger.claim(0, "cpu")
        assert isinstance(claim, Claim)
        assert ledger.finish(claim, TrialState[state], [0.5] if state == "COMPLETE" else None, {})
    assert ledger.left(ledger.counts()) == 0
    seeds = [trial.system_attrs[CONFIRMED]["seed"] for trial in confirmation.trials]
    assert (len(seeds), len(set(seeds))) == (5, 4)
    found = read_confirmation(study)
    assert found is not None
    assert (found.complete, found.open, found.missed) == (4, 0, 0)


@pytest.mark.parametrize("kind", STORAGE_KINDS)
def test_asking_again_adds_what_is_missing_and_nothing_else(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str
) -> None:
    project = Project(tmp_path, storage=make_storage_url(kind))
    study = fill_study(project, 6)
    assert find_confirmation(study) is None
    for top, seeds, trainings in ((2, 2, 4), (2, 2, 4), (3, 2, 6), (1, 4, 8)):
        confirmation = begun(project, study, top, seeds)
        plan = plan_of(confirmation)
        assert plan is not None
        assert count_trainings(plan) == trainings
        keys = [ConfirmationQueue.key_of(trial) for trial in confirmation.trials]
        assert len(set(keys)) == len(keys) == trainings
        assert {trial.state.name for trial in confirmation.trials} == {"WAITING"}
    best = ranking(study, 1)[0]
    marks = [trial.system_attrs[CONFIRMED] for trial in confirmation.trials]
    assert sorted(mark["repeat"] for mark in marks if mark["trial"] == best.number) == [0, 1, 2, 3]
    assert len({mark["seed"] for mark in marks}) == 8
    searched = {trial_seed(study_attributes(study)[STUDY_ATTR]["seed"], number) for number in range(1000)}
    assert not searched & {mark["seed"] for mark in marks}


def test_the_confirmation_is_run_without_what_steers_a_search(tmp_path: Path) -> None:
    rules = {"timeout": 100, "patience": 3, "target_value": 0.1, "at_stop": "prune", "enqueue_default": True}
    project = Project(tmp_path, pruner={"type": "MedianPruner"}, seed=3, **rules)
    study = fill_study(project, 3)
    config = confirmation_config(project.config, study)
    options = config.optuna
    assert (options.study_name, options.save_path) == ("s:confirm", str(project.save_path / "confirm"))
    assert (options.timeout, options.patience, options.target_value, options.enqueue_default) == (
        None,
        None,
        None,
        False,
    )
    assert options.pruner is not None
    assert options.pruner.type == "NopPruner"
    assert options.objective == project.config.optuna.objective
    assert config.model == project.config.model


def test_equal_configurations_are_one(tmp_path: Path) -> None:
    study = optuna.create_study()
    for x in (0.5, 0.5, 0.7):
        study.add_trial(
            optuna.create_trial(
                params={"x": x}, distributions={"x": optuna.distributions.FloatDistribution(0, 1)}, value=x
            )
        )
    assert [trial.number for trial in distinct(study.trials, 2)] == [0, 2]


def test_the_study_is_found_from_its_confirmation(tmp_path: Path) -> None:
    project = Project(tmp_path)
    study = fill_study(project, 3)
    config = confirmation_config(project.config, study)
    found = confirmed_study(begun(project, study, 1, 2), config)
    assert found is not None
    assert (found[0].study_name, found[1].paths.save_path) == ("s", project.save_path)
    assert confirmed_study(study, project.config) is None


def test_a_plan_never_shrinks(tmp_path: Path) -> None:
    project = Project(tmp_path)
    study, config = fill_study(project, 5), project.config
    best = ranking(study, 5)
    plan = extended(None, study, config, best[:3], 3)
    assert extended(plan, study, config, best[:1], 1) == plan
    assert plan["first"] == {"trials": [trial.number for trial in best[:3]], "seeds": 3}


def test_seeds_in_the_model_configuration_are_found(tmp_path: Path) -> None:
    model = {"seed": 3, "data": {"random_state": 0, "seed": "none"}, "trainer": {"random_seed": 1, "units": 2}}
    searched = {"trainer:random_seed": {"type": "int", "settings": {"low": 0, "high": 9}}}
    found = seed_keys(Project(tmp_path, model=model, parameters=searched).config)
    assert sorted(found) == ["data:random_state", "seed"]
