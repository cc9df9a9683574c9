"""`aimlhpo submit` where no cluster is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from aimlhpo.config.schema import Config
from tests.cli.studies import fill_study
from tests.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_path of a study whose trials have all ended, on which nobody works."""
    project = Project(tmp_path_factory.mktemp("study"), n_trials=2)
    fill_study(project, 2)
    return project.save_path


def test_nothing_is_submitted_for_a_finished_study(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(finished)]) == 3
    assert "nothing to do" in capsys.readouterr().out


def test_without_a_slurm_section_nothing_can_be_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_study(Project(tmp_path), 0)
    assert main(["submit", str(tmp_path / "run")]) == 2
    assert "slurm: this section is missing" in capsys.readouterr().err


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """The save_path of a study with two sections of jobs, the trials of which plain Optuna has made."""
    first = {"jobs": 2, "keep": True, "batch": {"partition": "a100", "time": "60"}}
    second = {"name": "old-GPUs", "jobs": 3, "batch": {"partition": "v100", "gres": "gpu:2"}}
    project = Project(tmp_path, n_trials=8, slurm=[first, second], storage="journal")
    fill_study(project, 4)
    return project.save_path


def test_each_section_has_a_script_of_its_own(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(several), "--dry-run"]) == 0
    first, second = capsys.readouterr().out.split("#!/bin/bash -l")[1:]
    assert "#SBATCH --array=0-1\n#SBATCH --partition=a100\n#SBATCH --time=60\n" in first
    assert f"aimlhpo agent {several} --section a100\n" in first
    assert "#SBATCH --array=2-4\n#SBATCH --partition=v100\n#SBATCH --gres=gpu:2\n" in second
    assert f"aimlhpo agent {several} --section old-GPUs\n" in second


def test_one_section_is_submitted_by_its_name(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(several), "--dry-run", "--section", "old-GPUs", "--jobs", "5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("#!/bin/bash") == 1
    assert "#SBATCH --array=0-4\n#SBATCH --partition=v100\n" in shown
    assert main(["submit", str(several), "--dry-run", "--jobs", "5"]) == 2
    assert "legal: --section, too: a100, old-GPUs" in capsys.readouterr().err
    assert main(["submit", str(several), "--dry-run", "--section", "new"]) == 2
    assert "no section 'new'\n    legal: a100, old-GPUs" in capsys.readouterr().err


def test_when_slurm_stops_taking_jobs_the_commands_for_the_rest_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [("a100", 2), ("v100&more", 5), ("cpu", 1)]
    project = Project(tmp_path, n_trials=8, slurm=[{"name": name, "jobs": jobs, "batch": {}} for name, jobs in names])
    fill_study(project, 1)
    programs = {  # a cluster whose arrays have two jobs at most, and that takes two of them
        "scontrol": "echo MaxArraySize = 2",
        "squeue": ":",
        "sbatch": f"echo call >>{tmp_path}/calls; calls=$(wc -l <{tmp_path}/calls)\n[ $calls -lt 3 ] && echo $calls",
    }
    (tmp_path / "bin").mkdir()
    for name, lines in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert main(["submit", str(project.save_path)]) == 5
    said = capsys.readouterr().err
    assert f"The others: aimlhpo submit {project.save_path} --section 'v100&more' --jobs 3\n" in said
    assert "Of other sections, 1_[0-1] were submitted before" in said
    assert f"The rest: aimlhpo submit {project.save_path} --section cpu\n" in said


@pytest.mark.parametrize(("section", "partition"), [([], "a100"), (["--section", "old-GPUs"], "v100")])
def test_a_confirmation_trains_in_jobs_of_one_section(
    several: Path, section: list[str], partition: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(several), "--dry-run", "--top", "1", "--seeds", "2", *section]) == 0
    assert f"#SBATCH --array=0-1\n#SBATCH --partition={partition}\n" in capsys.readouterr().out


def test_a_job_of_a_section_that_is_gone_goes_by_the_first(
    several: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[Config] = []
    monkeypatch.setattr("aimlhpo.cli.verbs.jobs.run_job", lambda config, view: begun.append(config) or 0)
    for section in ("gone", "old-GPUs"):
        assert main(["agent", str(several), "--section", section]) == 0
    assert capsys.readouterr().out.count("no section") == 1
    assert [config.section for config in begun] == ["gone", "old-GPUs"]
    gone = begun[0].slurm
    assert gone is not None
    assert (gone.batch["partition"], gone.keep) == ("a100", False)


def test_a_study_without_a_list_of_sections_has_none_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_study(Project(tmp_path, slurm={"batch": {"partition": "a100"}}), 1)
    assert main(["submit", str(tmp_path / "run"), "--dry-run", "--section", "a100"]) == 2
    assert "no section 'a100'\n    legal: no --section" in capsys.readouterr().err
