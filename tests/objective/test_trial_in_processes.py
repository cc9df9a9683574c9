"""Processes that an objective starts use its trial: each call is done on the worker's trial, or refused in words."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from aimlhpo.storage.attributes import record_of
from tests.project import Project

USES = (
    "suggest in a child",
    "suggest in a child",
    "suggest in several children",
    "suggest in a grandchild",
    "suggest in a spawned child",
    "report from a pickle",
    "prune in a child",
    "fail in a child",
    "leave a child behind",
    "go on beside that child",
    "read the study",
    "suggest in a child",
)
STATES = {"prune in a child": "PRUNED", "fail in a child": "FAIL"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One worker has run trials that use `trial` in all these ways, in the words of objectives/trial_uses.py."""
    made = Project(
        tmp_path_factory.mktemp("uses"),
        Path(__file__).parent / "objectives" / "trial_uses.py",
        model={"uses": list(USES)},
        n_trials=len(USES) - 1,  # one fails
        max_retries=0,
        pruning="strict",
        pruner={"type": "ThresholdPruner", "upper": 9.5},
    )
    made.run("--local", "1")
    return made


@pytest.fixture(scope="module")
def trials(project: Project) -> list[optuna.trial.FrozenTrial]:
    return project.study().trials


def test_every_trial_ends_as_its_objective_means(trials: list[optuna.trial.FrozenTrial]) -> None:
    ends = {trial.number: (trial.state.name, record_of(trial)["error"]) for trial in trials}
    assert [state for state, _ in ends.values()] == [STATES.get(use, "COMPLETE") for use in USES], ends


def test_value_used_in_a_child_is_the_one_stored(trials: list[optuna.trial.FrozenTrial]) -> None:
    suggested = [trial for trial in trials if trial.state.name == "COMPLETE" and "y" in trial.params]
    assert len(suggested) == 7
    assert [trial.value for trial in suggested] == [trial.params["y"] for trial in suggested]
    assert len({trial.params["y"] for trial in suggested}) == len(suggested)


def test_reports_and_attributes_of_a_child_are_its_trials(trials: list[optuna.trial.FrozenTrial]) -> None:
    assert trials[0].intermediate_values == {7: trials[0].params["y"]}
    assert trials[3].intermediate_values == {7: trials[3].params["y"]}
    assert trials[4].user_attrs["key"] == [1]
    assert trials[5].intermediate_values == {3: 0.5}


def test_child_is_told_to_prune_by_its_own_reports(trials: list[optuna.trial.FrozenTrial]) -> None:
    assert trials[6].user_attrs["told"] == "pruned at 10"
    assert trials[6].intermediate_values == {step: float(step) for step in range(11)}


def test_what_is_refused_is_raised_in_the_child(trials: list[optuna.trial.FrozenTrial]) -> None:
    assert "ValueError" in record_of(trials[7])["cause"]


def test_child_that_outlives_its_trial_is_told_so(project: Project, trials: list[optuna.trial.FrozenTrial]) -> None:
    *said, number = (project.folder / "late.said").read_text().splitlines()
    assert said == ["trial 8 has ended: from now on it can only be read"] * 3
    assert number == "8"
    assert trials[9].intermediate_values == {}


def test_what_optunas_own_functions_set_is_stored(trials: list[optuna.trial.FrozenTrial]) -> None:
    assert trials[10].constraints == {"memory": 2.0}
    assert trials[10].system_attrs["terminator:cv_scores"] == [0.1, 0.2]
