"""What the package needs in its own processes stays there: user code and programs see the user's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_project import CommandProject
from tests.project import Project

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
    import importlib.util, json, os, sys
    import yaml  # aimlhpo's environment has a package of that name, too
    seen = {"yaml": yaml.VERSION, "path": sys.path, "aimlhpo": importlib.util.find_spec("aimlhpo") is not None,
            "environment": dict(os.environ)}
    print(json.dumps({"val_loss": 1.0, "seen": json.dumps(seen)}))
"""
OBJECTIVE = """
    import json, subprocess
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            here = Path(__file__).parent
            program = [here / "other/bin/python", here / "train.py"]
            return json.loads(subprocess.check_output(program))
"""
NAMED = {  # in docs/command.md and docs/objective.md
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS", "PYTHONUNBUFFERED", "AIMLHPO_TRIAL", "AIMLHPO_ATTEMPT", "AIMLHPO_SEED",
    "AIMLHPO_CHECKPOINT_DIR", "AIMLHPO_WORKER",
}  # fmt: skip


@pytest.fixture(autouse=True)
def other_python(tmp_path: Path) -> None:
    """A Python with an environment and a package of its own."""
    folder = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "yaml.py").write_text("VERSION = 'of the other environment'\n")


def run_from_sources(project: Project) -> dict[str, str]:
    """Run the study with the aimlhpo of this folder, which need not be installed. Returns the environment it had."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_", "PYTEST"))}
    command = [sys.executable, str(ROOT / "optimize.py"), *project.command()[4:]]
    done = subprocess.run(command, env=given, cwd=project.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return given


@pytest.mark.parametrize("kind", ["command", "objective"])
def test_program_of_another_python_has_its_own_packages(tmp_path: Path, kind: str) -> None:
    project: Project = CommandProject(tmp_path, PROGRAM, "other/bin/python train.py {parameters}", n_trials=1)
    if kind == "objective":
        project = Project(tmp_path, OBJECTIVE, n_trials=1)
    given = run_from_sources(project)
    seen: dict[str, Any] = json.loads(project.records()[0]["metrics"]["seen"])
    assert seen["yaml"] == "of the other environment"
    assert not seen["aimlhpo"]
    assert not any(str(ROOT) in entry for entry in seen["path"])
    added = {name: value for name, value in seen["environment"].items() if given.get(name) != value}
    assert set(added) <= NAMED
    assert set(given) <= set(seen["environment"])
