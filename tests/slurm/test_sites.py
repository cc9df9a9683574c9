"""The example sections load as they are, and make a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.check.settings import load_config
from aimlhpo.launch.slurm.plan import plan_submission
from aimlhpo.launch.slurm.sbatch import render_script

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "torch"
SITES = sorted((ROOT / "slurm" / "sites").glob("*.yml"))


@pytest.fixture(params=SITES, ids=lambda path: path.stem)
def hyperparameters(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return with_section(request.param, tmp_path)


def with_section(site: Path, folder: Path) -> Path:
    """The torch example with a site's section."""
    file = folder / "hyperparameters.yml"
    file.write_text((EXAMPLE / "hyperparameters.yml").read_text() + site.read_text())
    return file


def test_a_section_loads(hyperparameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    section = load_config(hyperparameters, EXAMPLE / "model.yml").slurm
    assert section is not None
    assert section.jobs > 1
    assert section.batch["job-name"] == "my_study"


def test_a_section_makes_a_script(hyperparameters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "/nowhere")
    config = load_config(hyperparameters, EXAMPLE / "model.yml", [f"log:save_path={tmp_path / 'study'}"])
    assert "#SBATCH --account=my_project" in render_script(plan_submission(config))


def test_the_command_shows_the_script_without_slurm(tmp_path: Path) -> None:
    hyperparameters = with_section(SITES[0], tmp_path)
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
