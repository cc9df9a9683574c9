"""Which launcher a study gets, and how another one is added."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.launch.base import (
    LAUNCHERS,
    Launcher,
    LaunchPlan,
    LaunchReport,
    launcher_for,
    launcher_of_jobs,
    run_job,
)
from aimlhpo.launch.local import LocalLauncher
from aimlhpo.launch.slurm.launcher import SlurmLauncher
from aimlhpo.launch.slurm.queue import JobArray, write_array

WITH_SLURM: Any = SimpleNamespace(slurm=SimpleNamespace())
WITHOUT: Any = SimpleNamespace(slurm=None)


class CloudLauncher(Launcher):
    """A launcher that somebody has added."""

    submits = True

    def check(self, config: Any) -> Iterable[Problem]:
        return [Problem("cloud", "is empty", "a place")] if not config.cloud else []

    def plan(self, config: Any, count: int | None = None) -> list[LaunchPlan]:
        return [LaunchPlan([("jobs", str(count))], "#!/bin/bash\n")]

    def start(self, config: Any, view: Any, count: int | None = None) -> LaunchReport:
        return LaunchReport("submitted")

    def is_in_job(self) -> bool:
        return True

    def run_job(self, config: Any, view: Any) -> int:
        return 0


def test_the_section_decides_unless_the_study_is_to_run_here() -> None:
    assert isinstance(launcher_for(WITH_SLURM), SlurmLauncher)
    assert isinstance(launcher_for(WITH_SLURM, local=True), LocalLauncher)
    assert isinstance(launcher_for(WITHOUT), LocalLauncher)


def test_the_launcher_of_jobs_is_the_one_that_has_submitted_some(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path, "s")
    assert isinstance(launcher_of_jobs(paths), LocalLauncher)
    paths.create()
    assert isinstance(launcher_of_jobs(paths), LocalLauncher)
    write_array(paths, JobArray("7", 1))
    assert isinstance(launcher_of_jobs(paths), SlurmLauncher)


def test_an_agent_needs_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match="this is no SLURM job"):
        run_job(WITHOUT, SimpleNamespace())  # type: ignore[arg-type]


def test_a_new_launcher_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("aimlhpo.launch.cloud")
    vars(module)["CloudLauncher"] = CloudLauncher
    monkeypatch.setitem(sys.modules, "aimlhpo.launch.cloud", module)
    monkeypatch.setitem(LAUNCHERS, "cloud", "aimlhpo.launch.cloud:CloudLauncher")
    config: Any = SimpleNamespace(slurm=None, cloud="here")
    assert isinstance(launcher_for(config), CloudLauncher)
    assert run_job(config, SimpleNamespace()) == 0  # type: ignore[arg-type]
