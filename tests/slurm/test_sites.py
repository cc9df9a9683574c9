"""The example sections load as they are, and make a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.config import load_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "torch"
SITES = sorted((ROOT / "slurm" / "sites").glob("*.yml"))


@pytest.fixture(params=SITES, ids=lambda path: path.stem)
def hyperparameters(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The torch example with a site's section."""
    file = tmp_path / "hyperparameters.yml"
    file.write_text((EXAMPLE / "hyperparameters.yml").read_text() + request.param.read_text())
    return file


def test_a_section_loads(hyperparameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    section = load_config(hyperparameters, EXAMPLE / "model.yml").slurm
    assert section is not None
    assert section.jobs > 1
    assert section.batch["job-name"] == "my_study"


def test_a_section_makes_a_script_without_slurm(hyperparameters: Path, tmp_path: Path) -> None:
    study = [str(hyperparameters), str(EXAMPLE / "model.yml"), "--dry-run", "-s", str(tmp_path / "study")]
    without_slurm = {**os.environ, "PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "optimize.py", *study],
        cwd=ROOT,
        env=without_slurm,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "#SBATCH --account=my_project" in done.stdout
