"""`aimlhpo init`: what it writes, and what it never touches. That the files run is seen in tests/frameworks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.check.settings import load_config
from aimlhpo.cli.main import main
from aimlhpo.cli.verbs.files import KINDS


def test_without_a_kind_the_kinds_are_listed_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 2
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in KINDS)
    assert [*tmp_path.iterdir()] == []


def test_a_kind_that_is_not_there_is_told_with_a_guess(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "pytorch", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "legal: torch, keras, lightning, sklearn, command" in told
    assert "did you mean: aimlhpo init torch" in told
    assert [*tmp_path.iterdir()] == []


def test_it_says_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my study"
    assert main(["init", "command", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"  cd '{folder}'\n  aimlhpo check " in printed
    assert sorted(path.name for path in folder.iterdir()) == ["hyperparameters.yml", "model.yml", "train.py"]


def test_a_framework_that_is_missing_is_to_be_installed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert main(["init", "torch", str(tmp_path)]) == 0
    assert "next:\n  pip install 'aimlhpo[torch]'\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["hyperparameters.yml", "model.yml", "objective.py"])
def test_no_file_is_overwritten_and_none_is_written_beside_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    assert main(["init", "sklearn", str(tmp_path)]) == 2
    assert f"{tmp_path / name} would be overwritten; nothing was written" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", "sklearn", str(tmp_path / "file" / "study")]) == 2
    assert "Not a directory; nothing was written" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_of_the_files(tmp_path: Path) -> None:
    limited = f"ulimit -f 1; exec '{sys.executable}' -B -m aimlhpo init sklearn"  # no file above 1 KiB can be written
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "nothing was written" in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_right_with_and_without_their_section_for_a_cluster(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", kind]) == 0
    file = tmp_path / "hyperparameters.yml"
    assert load_config(file, tmp_path / "model.yml").slurm is None
    head, comment, section = file.read_text().partition("# slurm:")
    assert comment
    file.write_text(head + re.sub(r"^# ", "", comment + section, flags=re.MULTILINE))
    slurm = load_config(file, tmp_path / "model.yml").slurm
    assert slurm is not None
    assert slurm.jobs == 4


def test_the_section_for_a_cluster_makes_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "command"]) == 0
    file = tmp_path / "hyperparameters.yml"
    file.write_text(re.sub(r"^# (?=slurm:|  )", "", file.read_text(), flags=re.MULTILINE))
    assert main(["optimize", "hyperparameters.yml", "model.yml", "--dry-run"]) == 0
    assert "#SBATCH --array=0-3" in capsys.readouterr().out
