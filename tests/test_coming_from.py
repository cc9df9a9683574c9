"""docs/coming-from.md: what stands on the left is what the other tools take, and means what stands on the right.

The files on the right, and plain Optuna's, run in test_docs.py with the commands of the page.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from aimlhpo.check.settings import load_config
from aimlhpo.cli.main import main
from benchmarks.peers.environment import environment
from tests.test_docs import ROOT, read_snippets

OTHERS = {
    "hydra": ("hydra-core==1.3.2 hydra-optuna-sweeper==1.2.0", "train_hydra.py --multirun", "Best value: 0.0"),
    "ray": ("ray[tune]==2.60.0", "tune_ray.py", "'learning_rate': 0.0"),
    "syne": ("syne-tune==0.16.0", "tune_syne.py", "loss: best 0.0"),
}
"""What is installed for each, what runs, and what it prints once it has found a good learning rate."""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, in the current directory."""
    for snippet in read_snippets(ROOT / "docs/coming-from.md"):
        if snippet.file:
            path = tmp_path / snippet.file
            path.parent.mkdir(exist_ok=True)
            path.write_text(snippet.text.partition("\n")[2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_migrate_writes_the_file_that_stands_beside_that_of_echo_opt() -> None:
    assert main(["migrate", "echo.yml", "-o", "migrated.yml"]) == 0
    assert Path("migrated.yml").read_text() == Path("from_echo.yml").read_text()


def test_the_search_space_in_hydras_grammar_is_that_of_the_file_beside_it() -> None:
    files = Path("from_hydra.yml"), Path("model.yml")
    hydra = yaml.safe_load(Path("conf/config.yaml").read_text())
    sweeps = [f"{key}={sweep}" for key, sweep in hydra["hydra"]["sweeper"]["params"].items()]
    ours = load_config(*files)
    assert load_config(*files, sweeps).space.distributions == ours.space.distributions
    assert {key: hydra[key] for key in hydra if key not in ("defaults", "hydra")} == yaml.safe_load(
        files[1].read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_files_on_the_left_run_with_their_own_tool(name: str, project: Path) -> None:
    """On this machine: Hydra's without its launcher for SLURM."""
    requirement, words, printed = OTHERS[name]
    hydra = yaml.safe_load(Path("conf/config.yaml").read_text())
    hydra["defaults"].remove({"override hydra/launcher": "submitit_slurm"})
    del hydra["hydra"]["launcher"]
    Path("conf/config.yaml").write_text(yaml.safe_dump(hydra, sort_keys=False))
    command = [environment(name, requirement), *words.split()]
    home = {**os.environ, "HOME": str(project), "PYTHONWARNINGS": "ignore"}  # where some of them write
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert printed in done.stdout + done.stderr
