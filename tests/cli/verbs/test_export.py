"""`aimlhpo export`: what it writes is trained elsewhere, and gives the value that the study had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from aimlhpo.cli.main import main
from tests.cli.studies import FAILING, fill_study
from tests.command_project import CommandProject
from tests.project import Project

ROOT = Path(__file__).resolve().parents[3]
OBJECTIVE = """
    import random
    from aimlhpo import BaseObjective
    from parts.noise import noise

    class Objective(BaseObjective):
        def train(self, trial, conf):
            import late
            custom_updates(trial, conf)
            for epoch in range(3):
                trial.report(conf["model"]["x"] + epoch, epoch)
                if trial.should_prune():
                    raise late.Pruned
            own = trial.suggest_float("own", 0.0, 1.0)
            (self.checkpoint_dir(trial) / "model").write_text("weights")
            assert conf["optuna"]["parameters"] and trial.study.study_name == "s"
            return {"val_loss": conf["model"]["x"] * conf["model"]["units"] + own + noise(trial.seed)}

    def custom_updates(trial, conf):
        conf["model"]["units"] *= 2 + trial.suggest("plain")
"""
FILES = {
    "parts/__init__.py": "",
    "parts/noise.py": "from .rest import random\ndef noise(seed): return random.Random(seed).random()\n",
    "parts/rest.py": "import random\n",
    "late.py": "from optuna import TrialPruned as Pruned\n",
    "unused.py": "",
}
PARAMETERS = {
    "model:x": {"type": "loguniform", "settings": {"name": "x", "low": 1e-3, "high": 1.0}},
    "plain": {"type": "int", "settings": {"low": 1, "high": 5}},
}
SCRIPT = """
    import argparse, json, os, random, yaml
    from helper import scale
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float)
    parser.add_argument("--config")
    given = parser.parse_args()
    units = yaml.safe_load(open(given.config))["model"]["units"]
    noise = random.Random(int(os.environ["AIMLHPO_SEED"])).random()
    print(json.dumps({"val_loss": scale(given.x) * units + noise, "said": os.environ["SAID"]}))
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """A fresh environment with aimlhpo and the packages that it needs, and nothing that leads to the study."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "new"], cwd=tmp_path, check=True)
    programs = tmp_path / "new/bin"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([programs / "python", "-c", code], capture_output=True, text=True, check=True).stdout
    site = Path(found.strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copytree(ROOT / "aimlhpo", site / "aimlhpo", ignore=shutil.ignore_patterns("__pycache__"))
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}"}


def finished(project: Project, number: int) -> float:
    value = project.study().trials[number].value
    assert value is not None
    return value


def test_an_objective_is_trained_again_elsewhere_and_gives_the_value(
    tmp_path: Path, elsewhere: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    (there / "parts").mkdir(parents=True)
    for name, text in FILES.items():
        (there / name).write_text(text)
    project = Project(there, OBJECTIVE, n_trials=3, parameters=PARAMETERS)
    project.run()
    target = tmp_path / "exported"
    assert main(["export", str(project.save_path), str(target), "--trial", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    value, names = finished(project, 1), {path.relative_to(target).as_posix() for path in target.rglob("*")}
    assert {"objective.py", "parts/__init__.py", "parts/noise.py", "parts/rest.py", "late.py", "train.py"} <= names
    assert "unused.py" not in names
    assert {line.split()[0] for line in printed.out.splitlines()[1:]} == {
        str(target / name) for name in names if (target / name).is_file()
    }
    assert yaml.safe_load((target / "model.yml").read_text())["model"]["units"] == 4  # train() doubles it and more
    readme = (target / "README.md").read_text()
    assert f"val_loss {value!r}" in readme
    assert "model:units" in readme
    requirements = (target / "requirements.txt").read_text()
    assert requirements.startswith("# What trial 1 of study s ran with, on Python 3.")
    assert "aimlhpo==" not in requirements

    shutil.move(target, tmp_path / "away")
    shutil.rmtree(there)
    done = subprocess.run(
        ["python", "train.py"], cwd=tmp_path / "away", env=elsewhere, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert f"val_loss: {value!r}, as expected" in done.stdout
    assert "step 2: " in done.stdout
    assert (tmp_path / "away/checkpoint/model").read_text() == "weights"


def test_a_command_is_run_again_elsewhere(
    tmp_path: Path, elsewhere: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "helper.py").write_text("def scale(x): return 3 * x\n")
    project = CommandProject(
        there,
        SCRIPT,
        "{python} train.py {parameters} --config {config}",
        n_trials=2,
        working_directory=str(there),
        environment={"SAID": "${HOME} and 'more'"},
    )
    project.run()
    value = finished(project, 0)
    assert main(["export", str(project.save_path), str(tmp_path / "away"), "--trial", "0"]) == 0
    assert "note: run.sh sets SAID" in capsys.readouterr().err
    shutil.rmtree(there)
    done = subprocess.run(
        ["sh", str(tmp_path / "away/run.sh")], env=elsewhere, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"val_loss": value, "said": f"{os.environ['HOME']} and 'more'"}


def test_a_command_for_several_nodes_is_run_again_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "{python} train.py {parameters} --config {config} --at={master_addr}:{master_port} {node_rank}/{nnodes}"
    project = CommandProject(tmp_path, "print('{\"val_loss\": 1.0}')", command, n_trials=1)
    project.run()
    assert main(["export", str(project.save_path), str(tmp_path / "away")]) == 0
    told = "{nnodes} is 1, {node_rank} is 0, {master_addr} is 127.0.0.1, {master_port} is 29500"
    assert f"note: run.sh trains on this machine alone: {told}" in capsys.readouterr().err
    assert (tmp_path / "away/run.sh").read_text().endswith("--config model.yml --at=127.0.0.1:29500 0/1\n")


def test_nothing_is_overwritten_and_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, FAILING, n_trials=2)
    project.run()
    study = str(project.save_path)
    assert main(["export", study, str(tmp_path)]) == 2
    assert "is there already, and is not empty" in capsys.readouterr().err
    assert main(["export", study, str(tmp_path / "new"), "--trial", "1"]) == 2
    assert "trial 1 is FAIL" in capsys.readouterr().err
    assert main(["export", study, str(tmp_path / "new"), "--trial", "99"]) == 2
    assert "there is no trial 99" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    assert main(["export", study, str(tmp_path / "new")]) == 0


def test_an_objective_that_has_changed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=1)
    project.run()
    with (tmp_path / "objective.py").open("a") as file:
        file.write("\n# another text\n")
    assert main(["export", str(project.save_path), str(tmp_path / "new")]) == 0
    assert "objective.py has changed since the trial was made" in capsys.readouterr().err
    assert "has changed since" in (tmp_path / "new/README.md").read_text()


def test_a_study_without_results_has_nothing_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 0)
    assert main(["export", str(project.save_path), str(tmp_path / "new")]) == 2
    assert "no trial is complete" in capsys.readouterr().err


def test_a_runner_does_not_take_the_place_of_a_module_of_the_objective(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("value = 0.5\n")
    project = Project(
        tmp_path,
        """
        from aimlhpo import BaseObjective
        from train import value

        class Objective(BaseObjective):
            def train(self, trial, conf):
                return {"val_loss": value}
        """,
        n_trials=1,
    )
    project.run()
    assert main(["export", str(project.save_path), str(tmp_path / "new")]) == 0
    assert (tmp_path / "new/train.py").read_text() == "value = 0.5\n"
    done = subprocess.run(
        [sys.executable, "train_again.py"], cwd=tmp_path / "new", capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "val_loss: 0.5, as expected" in done.stdout
