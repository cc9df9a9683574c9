"""Files of NCAR's echo-opt: understood as they stand, written anew with their comments; and their studies go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
import yaml

from aimlhpo.check.settings import load_config
from aimlhpo.cli.main import main
from aimlhpo.storage.open import open_storage
from tests.project import Project

FOLDER = Path(__file__).parent / "echo_opt"
FILES = ["hyperparameters.yml", "model.yml"]
PBS = """\
pbs:
  jobs: 10
  tasks_per_worker: 3
  bash: ["module load cuda"]
  batch:
    l: ["select=1:ncpus=8:ngpus=1:mem=128GB", "walltime=12:00:00"]
    A: "NAML0001"
    q: casper
optuna: {name: s, objective: objective.py, n_trials: 3, gpu: a100, storage_type: sqlite}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A training code with its file of echo-opt's, in the current directory."""
    project = Project(tmp_path)
    shutil.copy(FOLDER / "hyperparameters.yml", project.hyperparameters)
    monkeypatch.chdir(tmp_path)
    return project


def test_the_new_file_is_the_old_one_but_for_the_keys(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = project.hyperparameters.read_text()
    assert main(["migrate", "hyperparameters.yml"]) == 0
    told = capsys.readouterr().out
    assert "6 changes" in told
    assert "slurm: trials_per_job: now slurm: workers_per_job: 2" in told
    new = Path("hyperparameters.new.yml")
    assert new.read_text() == (FOLDER / "migrated.yml").read_text()
    assert project.hyperparameters.read_text() == before
    assert main(["migrate", "hyperparameters.yml"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["migrate", str(new), "-o", "other.yml"]) == 3


def test_both_files_mean_the_same(project: Project) -> None:
    old = load_config(project.hyperparameters, project.model)
    assert old == load_config(FOLDER / "migrated.yml", project.model)
    assert old.optuna.storage == f"sqlite:///{project.save_path}/echo.db"
    assert old.optuna.gpu
    assert old.slurm is not None
    assert old.slurm.workers_per_job == 2


def test_check_points_to_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *FILES, "optuna:reload=0"]) == 0
    assert "aimlhpo migrate hyperparameters.yml" in capsys.readouterr().err


def test_jobs_of_pbs_are_told_with_the_section_to_write(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.hyperparameters.write_text(PBS)
    assert main(["check", *FILES]) == 2
    told = capsys.readouterr().err
    assert "pbs: jobs are submitted to SLURM" in told
    assert "account: NAML0001" in told
    assert "aimlhpo migrate hyperparameters.yml" in told
    assert main(["migrate", "hyperparameters.yml"]) == 0
    section = load_config(Path("hyperparameters.new.yml"), project.model).slurm
    assert section is not None
    assert (section.jobs, section.trials_per_gpu, section.bash) == (10, 3, ["module load cuda"])
    assert section.batch == {
        "account": "NAML0001", "partition": "casper", "time": "12:00:00", "cpus-per-task": "8", "gpus-per-node": "1",
        "mem": "128G",
    }  # fmt: skip


def test_what_cannot_be_changed_key_by_key_is_left(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.hyperparameters.write_text("save_path: &here run\noptuna: {name: s, objective: *here}\n")
    assert main(["migrate", "hyperparameters.yml"]) == 2
    assert "by hand" in capsys.readouterr().err
    assert not Path("hyperparameters.new.yml").exists()


def test_a_study_of_plain_optuna_in_its_database_goes_on(project: Project) -> None:
    project.save_path.mkdir()
    storage = f"sqlite:///{project.save_path}/echo.db"
    plain = optuna.create_study(study_name="echo", storage=storage)
    plain.optimize(lambda trial: trial.suggest_float("x", 0.001, 1.0, log=True), n_trials=3)
    before = plain.trials
    assert main(["optimize", *FILES, "--local", "1", "-g", "0"]) == 0
    trials = optuna.load_study(study_name="echo", storage=open_storage(storage)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    assert trials[:3] == before
    assert {"x", "units"} <= trials[4].params.keys()


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_lists_to_choose_from_that_plain_optuna_has_stored_are_carried_over(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.save_path.mkdir()
    plain = optuna.create_study(study_name="echo", storage=f"sqlite:///{project.save_path}/echo.db")
    trial = plain.ask()
    trial.suggest_float("x", 0.001, 1.0, log=True)
    trial.suggest_categorical("units", [[4], [4, 4]])  # type: ignore[list-item]
    plain.tell(trial, 1.0)
    assert main(["check", *FILES]) == 2
    told = capsys.readouterr().err
    assert "optuna: parameters: units" in told
    lines = yaml.safe_load(told.rpartition("trials:\n")[2])
    data = yaml.safe_load(project.hyperparameters.read_text())
    data["optuna"].update({**lines, "study_name": lines.pop("name")})
    project.hyperparameters.write_text(yaml.safe_dump({**data, "save_path": None}))
    assert main(["check", *FILES]) == 0
    assert "1 of 1 trials of study echo taken over" in capsys.readouterr().out
