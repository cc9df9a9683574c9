"""A study on this machine, through the command, with real workers."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from aimlhpo.errors import ExitCode
from tests.conftest import STORAGE_KINDS
from tests.project import Project
from tests.waiting import wait_until

OBJECTIVES = Path(__file__).parent / "objectives"
SLOW, QUICK = OBJECTIVES / "slow.py", OBJECTIVES / "quick.py"


@pytest.mark.parametrize("kind", STORAGE_KINDS)
@pytest.mark.parametrize("workers", [1, 4])
def test_budget_is_exact(tmp_path: Path, make_storage_url: Callable[[str], str], kind: str, workers: int) -> None:
    project = Project(tmp_path, storage=make_storage_url(kind), n_trials=12)
    project.run("--local", str(workers))
    assert project.states() == {"COMPLETE": 12}
    for trial in project.study().trials:
        assert trial.value == pytest.approx((trial.params["x"] - 0.5) ** 2)
        assert len(trial.intermediate_values) == 3


def test_finished_study_goes_on_where_that_is_asked_for(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=3)
    project.run()
    refused = project.run(expect=ExitCode.CONFIG)
    assert "reload: 1" in refused.stderr
    assert "Traceback" not in refused.stderr
    again = project.run("-r", "1", expect=ExitCode.NOTHING_TO_DO)
    assert "has finished its 3 trials" in again.stdout
    assert project.states() == {"COMPLETE": 3}
    project.run("-r", "1", "-t", "5", "--local", "2")
    assert project.states() == {"COMPLETE": 5}


def test_results_say_what_the_objective_returned(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=4)
    project.run("--local", "2")
    rows = (project.save_path / "results.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "x_seen" in rows[0]
    best = yaml.safe_load((project.save_path / "best.yml").read_text())
    assert best["model"] == {"x": pytest.approx(project.study().best_params["x"]), "units": 4}


def test_worker_stays_warm_and_its_log_holds_its_trials(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=4)
    project.run()
    logs = list((project.save_path / "logs").glob("worker-*.log"))
    assert len(logs) == 1
    for number, record in enumerate(project.records()):
        assert (project.save_path / record["log"]) == logs[0]
        begins = logs[0].read_bytes()[record["log_offset"] :].decode()
        assert f"trial {number}," in begins.splitlines()[0]


def test_each_worker_has_its_own_device(tmp_path: Path) -> None:
    objective = """
        import os, time
        from pathlib import Path
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                here, gpu = Path(__file__).parent, os.environ["CUDA_VISIBLE_DEVICES"]
                (here / f"on-{gpu}").touch()
                while len(list(here.glob("on-*"))) < 2:  # both workers have begun
                    time.sleep(0.02)
                return {"val_loss": 0.0, "gpu": gpu, "device": self.device}
    """
    project = Project(tmp_path, objective, gpu=True, n_trials=8)
    project.run("--local", "2", env={**os.environ, "CUDA_VISIBLE_DEVICES": "3,GPU-5"})
    metrics = [record["metrics"] for record in project.records()]
    assert Counter(entry["gpu"] for entry in metrics).keys() == {"3", "GPU-5"}
    assert {entry["device"] for entry in metrics} == {"cuda:0"}


def test_no_gpu_is_an_error(tmp_path: Path) -> None:
    project = Project(tmp_path, gpu=True)
    failed = project.run(expect=ExitCode.CONFIG, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert "gpu" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_study_gives_its_trials_back_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    project = Project(tmp_path, SLOW, n_trials=2)
    command = project.start("--local", "2")
    checkpoints = project.save_path / "checkpoints"
    wait_until(lambda: len(list(checkpoints.glob("*/step"))) == 2, "two running trials")
    command.send_signal(number)
    output, _ = command.communicate(timeout=60)
    assert command.returncode == ExitCode.INTERRUPTED, output
    assert "reload: 1" in output
    assert project.states() == {"WAITING": 2}
    project.write_objective(QUICK)
    project.run("-r", "1")
    assert project.states() == {"COMPLETE": 2}
    assert [record["attempts"] for record in project.records()] == [2, 2]


def test_no_process_is_left_when_the_agent_is_killed(tmp_path: Path) -> None:
    project = Project(tmp_path, SLOW, n_trials=1)
    command = project.start()
    checkpoint = project.save_path / "checkpoints" / "trial-00000" / "step"
    wait_until(checkpoint.exists, "a running trial")
    _, pid = checkpoint.read_text().split()
    worker = Path(f"/proc/{pid}")
    assert worker.exists()
    command.kill()
    command.wait()
    wait_until(lambda: not worker.exists(), "the worker's end")


def test_killed_agent_loses_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, SLOW, n_trials=2)
    command = project.start("--local", "2")
    wait_until(lambda: len(list((project.save_path / "checkpoints").glob("*/step"))) == 2, "two running trials")
    command.kill()
    command.wait()
    assert project.states() == {"RUNNING": 2}
    project.write_objective(QUICK)
    project.run("-r", "1")
    assert project.states() == {"COMPLETE": 2}


def test_undeclared_parameters_can_be_suggested(tmp_path: Path) -> None:
    objective = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                depth = trial.suggest_int("depth", 1, 4)
                kind = trial.suggest_categorical("kind", ["a", "b"])
                assert trial.suggest_float("x", 0.0, 1.0) == conf["model"]["x"]
                return {"val_loss": depth + len(kind)}
    """
    project = Project(tmp_path, objective, n_trials=3)
    project.run()
    assert project.states() == {"COMPLETE": 3}
    assert all(trial.params.keys() == {"x", "depth", "kind"} for trial in project.study().trials)


def test_pruned_trials_count(tmp_path: Path) -> None:
    objective = """
        import optuna
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                if trial.number > 0:
                    trial.report(10.0, 0)
                    if trial.should_prune():
                        raise optuna.TrialPruned
                return {"val_loss": 1.0}
    """
    project = Project(
        tmp_path, objective, n_trials=4, pruning="strict", pruner={"type": "ThresholdPruner", "upper": 5.0}
    )
    project.run("--local", "2")
    assert project.states() == {"COMPLETE": 1, "PRUNED": 3}
