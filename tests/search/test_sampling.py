"""Samplers learn from what the study holds at the moment they are asked."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from tests.project import Project


def test_later_trials_are_better_than_chance(tmp_path: Path) -> None:
    project = Project(tmp_path, storage="journal", n_trials=60, seed=1, sampler={"type": "TPESampler"})
    project.run("--local", "1")
    values = [trial.value for trial in project.study().trials if trial.value is not None]
    assert mean(values[40:]) < 0.3 * mean(values[:10])
