"""Pruning by optuna-integration, with the real frameworks: trials are pruned, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.project import Project

OBJECTIVES = Path(__file__).parent / "objectives"
FIRST_STEPS = {"lightgbm": 0, "xgboost": 0, "catboost": 0, "keras": 0, "lightning": 0, "skorch": 0, "sklearn": 3}
"""The step at which a trial is seen to be bad."""


def run(folder: Path, objective: str, **more: Any) -> Project:
    """Three trials: `model:x`, which is added to what is validated, makes the last two too bad to go on."""
    project = Project(
        folder,
        OBJECTIVES / f"{objective}.py",
        n_trials=3,
        parameters={"model:x": {"type": "float", "settings": {"low": 0.0, "high": 100.0}}},
        enqueue=[{"model:x": 0.0}, {"model:x": 100.0}, {"model:x": 99.0}],
        pruner={"type": "ThresholdPruner", "upper": 9.0},
        pruning="strict",
        **more,
    )
    project.run("--local", "1")
    return project


@pytest.mark.parametrize("framework", FIRST_STEPS)
def test_bad_trials_are_pruned_at_once_and_good_ones_complete(framework: str, tmp_path: Path) -> None:
    project = run(tmp_path, f"with_{framework}")
    good, *bad = project.study().trials
    assert good.state.name == "COMPLETE", project.records()[0]
    assert len(good.intermediate_values) == FIRST_STEPS[framework] + 3
    assert good.value == pytest.approx(list(good.intermediate_values.values())[-1])
    for trial in bad:
        assert trial.state.name == "PRUNED", project.records()[trial.number]
        assert max(trial.intermediate_values) == FIRST_STEPS[framework]


def test_optunas_trial_for_torch_distributed_works_in_all_ranks(tmp_path: Path) -> None:
    project = run(tmp_path, "with_torch_distributed", slurm={"gpus_per_worker": 2})
    assert project.states() == {"COMPLETE": 1, "PRUNED": 2}, project.records()
    record, trial = project.records()[0]["metrics"], project.study().trials[0]
    assert record["ranks"] == 2
    assert record["seen"] == trial.params["rate"]
    assert trial.value == pytest.approx(2 * trial.params["rate"] + 1)
