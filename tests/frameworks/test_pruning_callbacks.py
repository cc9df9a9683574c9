"""The pruning callbacks of optuna-integration, each with its real framework: trials are pruned, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import Project

OBJECTIVES = Path(__file__).parent / "objectives"
FIRST_STEPS = {"lightgbm": 0, "xgboost": 0, "catboost": 0, "keras": 0, "lightning": 0, "skorch": 0, "sklearn": 3}
"""The step at which a trial is seen to be bad."""


@pytest.mark.parametrize("framework", FIRST_STEPS)
def test_bad_trials_are_pruned_at_once_and_good_ones_complete(framework: str, tmp_path: Path) -> None:
    """`model:x` is added to what the validation expects: the loss is above 9 with 100, and below with 0."""
    project = Project(
        tmp_path,
        OBJECTIVES / f"with_{framework}.py",
        n_trials=3,
        parameters={"model:x": {"type": "float", "settings": {"low": 0.0, "high": 100.0}}},
        enqueue=[{"model:x": 0.0}, {"model:x": 100.0}, {"model:x": 100.0}],
        pruner={"type": "ThresholdPruner", "upper": 9.0},
        pruning="strict",
    )
    project.run("--local", "1")
    good, *bad = project.study().trials
    assert good.state.name == "COMPLETE", project.records()[0]
    assert len(good.intermediate_values) == FIRST_STEPS[framework] + 3
    assert good.value == pytest.approx(list(good.intermediate_values.values())[-1])
    for trial in bad:
        assert trial.state.name == "PRUNED", project.records()[trial.number]
        assert max(trial.intermediate_values) == FIRST_STEPS[framework]
