"""The wheel, in an environment of its own and away from the sources: what a user gets who installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from tests.project import Project

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "aimlhpo")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, because building leaves files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    run(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ".", folder=folder)
    (made,) = (folder / "dist").glob("*.whl")
    return made


def run(*command: str | Path, folder: Path, expect: int = 0) -> str:
    """Run the command where nothing leads to the sources; gives what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == expect, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def begin_a_study(programs: Path, kind: str, folder: Path, budget: str) -> None:
    """What the README says to type, with a small budget; each command by the line that the one before it prints."""
    folder.mkdir()
    printed = run(programs / "aimlhpo", "init", kind, folder=folder)
    for line in printed.partition("next:\n")[2].splitlines():
        program, *words = line.split()
        assert program == "aimlhpo"
        words += budget.split() if words[0] == "optimize" else []
        run(programs / program, *words, folder=folder)
    assert "3 of 3 done" in run(programs / "aimlhpo", "status", "runs/first", folder=folder)
    assert (folder / "runs/first/best.yml").exists()


def test_the_wheel_holds_the_files_of_the_package_and_no_others(wheel: Path) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "aimlhpo").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package
    assert "aimlhpo/py.typed" in names


def test_the_pages_that_say_how_to_install_name_the_wheel(wheel: Path) -> None:
    assert wheel.name in (ROOT / "README.md").read_text()
    assert wheel.name in (ROOT / "docs/quickstart.md").read_text()


def test_a_study_begins_with_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """In a new environment that borrows all other packages from the one that the tests run in."""
    run(sys.executable, "-m", "venv", "--without-pip", "new", folder=tmp_path)
    python = tmp_path / "new/bin/python"
    # A path in a .pth file brings the packages that lie there, and not the sources that one of its own points to.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    run(*PIP, "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, folder=tmp_path)
    assert str(site) in run(python, "-c", "import aimlhpo; print(aimlhpo.__file__)", folder=tmp_path)
    begin_a_study(python.parent, "sklearn", tmp_path / "study", "-t 3 epochs=3")


@pytest.mark.slow
def test_the_wheel_asks_for_all_that_it_needs(wheel: Path, tmp_path: Path) -> None:
    """In an environment that holds nothing else, with what pip finds in the index."""
    run(sys.executable, "-m", "venv", "new", folder=tmp_path)
    python = tmp_path / "new/bin/python"
    run(python, "-m", "pip", "install", "-q", wheel, folder=tmp_path)
    begin_a_study(python.parent, "command", tmp_path / "study", "-t 3")


@pytest.mark.slow
def test_what_was_exported_is_trained_again_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With what its requirements.txt asks for, from the index, and nothing else."""
    (tmp_path / "there").mkdir()
    project = Project(tmp_path / "there", n_trials=3)
    project.run()
    value = project.study().best_value
    exported = tmp_path / "exported"
    assert main(["export", str(project.save_path), str(exported)]) == 0
    shutil.rmtree(project.folder)
    run(sys.executable, "-m", "venv", "new", folder=tmp_path)
    python = tmp_path / "new/bin/python"
    run(python, "-m", "pip", "install", "-q", wheel, "-r", exported / "requirements.txt", folder=tmp_path)
    assert f"val_loss: {value!r}, as expected" in run(python, "train.py", folder=exported)
