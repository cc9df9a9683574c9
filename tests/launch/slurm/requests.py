"""Requests and configs for the tests of the SLURM launcher."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aimlhpo.config.paths import StudyPaths
from aimlhpo.launch.slurm.plan import AgentPython, Submission

DEFAULTS: dict[str, Any] = {
    "jobs": 1, "batch": {}, "kernel": None, "bash": [], "stop_on_error": True, "python": None,
    "workers_per_job": None, "packs": False, "most_trials_per_gpu": 1, "gpus_per_worker": 1, "nodes_per_worker": 1,
    "requeue": True, "max_requeues": None, "keep": False, "max_submissions": 1000,
}  # fmt: skip


def make_config(save_path: Path, name: str = "digits", **slurm: Any) -> Any:
    """What the launcher reads of a config, without the YAML files that it comes from."""
    paths = StudyPaths(save_path, name)
    config = SimpleNamespace(
        slurm=SimpleNamespace(**{**DEFAULTS, **slurm}),
        sections=(),
        section=None,
        by_section=lambda: [config],
        keys_of=lambda section: ("slurm",),
        optuna=SimpleNamespace(study_name=name, save_path=str(save_path)),
        paths=paths,
        write_snapshot=lambda: _snapshot(paths),
    )
    return config


def make_submission(**changes: Any) -> Submission:
    given: dict[str, Any] = {
        "study": "digits",
        "save_path": "/scratch/ada/digits",
        "jobs": 1,
        "options": (("job-name", "digits"), ("output", "/scratch/ada/digits/logs/job-%A_%a.log")),
        "python": AgentPython(("/opt/env/bin/python",)),
        "log": "/scratch/ada/digits/logs/job-%A_%a.log",
    }
    return Submission(**{**given, **changes})


def _snapshot(paths: StudyPaths) -> None:
    paths.create()
    paths.hyperparameters.touch()
