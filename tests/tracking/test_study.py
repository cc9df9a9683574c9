"""Whole studies that are tracked: by real MLflow stores and servers, and TensorBoard's files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from tests.project import Project
from tests.tracking.event_files import EventFiles
from tests.tracking.mlflow_runs import Server, settled
from tests.waiting import wait_until

EVERY_ENDING = """
    import optuna
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            for step in range(4):
                trial.report(trial.number + 1 / (1 + step), step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            if trial.number == 2:
                raise ValueError("a bad one")
            return {"val_loss": float(trial.number)}
"""
GATED = """
    import pathlib, time
    from aimlhpo import BaseObjective

    HERE = pathlib.Path(__file__).parent

    class Objective(BaseObjective):
        def train(self, trial, conf):
            steps = pathlib.Path(conf["optuna"]["save_path"]) / f"steps-{trial.number}"
            done = int(steps.read_text()) if steps.exists() else 0
            for step in range(done, 3):
                trial.report(10.0 - step, step)
                steps.write_text(str(step + 1))
                while trial.number > 0 and step == 1 and not (HERE / "go").exists():
                    time.sleep(0.02)
            return {"val_loss": 1.0 + trial.number}
"""
NOT_TOLD = "cannot be told of the trials now"


def both(folder: Path) -> tuple[str, str]:
    """Overrides that ask for MLflow in a directory and for TensorBoard."""
    return f"log:mlflow={folder / 'mlruns'}", "log:tensorboard=true"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "served")
    yield server
    server.kill()


def wait_until_trial_1_is_told(project: Project) -> None:
    """Until both tools have what trial 1 reports before it waits; event files are written after MLflow's part."""
    folder, steps = project.save_path / "tensorboard" / "trial-00001", project.save_path / "steps-1"
    wait_until(lambda: steps.exists() and steps.read_text() == "2", "trial 1")
    wait_until(lambda: folder.exists() and len(curve(project, 1)) == 2, "the reports of trial 1", 150)


def curve(project: Project, number: int) -> list[tuple[int, float]]:
    return EventFiles(project.save_path / "tensorboard" / f"trial-{number:05d}").scalars().get("reports/val_loss", [])


def test_every_trial_is_there_with_its_parameters_reports_and_ending(tmp_path: Path) -> None:
    pruner = {"type": "PercentilePruner", "percentile": 1.0, "n_startup_trials": 4}
    project = Project(tmp_path, EVERY_ENDING, n_trials=5, pruner=pruner, pruning="strict")
    done = project.run("log:mlflow=true", "log:tensorboard=true")
    assert "aimlhpo track" not in done.stdout + done.stderr
    found = settled(f"sqlite:///{project.save_path}/mlflow.db")
    trials = project.study().trials
    assert found.experiments == {"Default", "s"}
    assert [parent.info.status for parent in found.parents] == ["FINISHED"]
    assert found.parents[0].data.metrics["best/val_loss"] == project.study().best_value
    assert found.statuses == {"FAILED": 1, "FINISHED": 4, "KILLED": 1}
    for trial in trials:
        assert found.history(trial.number, "reports/val_loss") == sorted(trial.intermediate_values.items())
        assert found.trials[trial.number].data.params["x"] == str(trial.params["x"])
        assert found.trials[trial.number].data.params["model:units"] == "4"
        files = EventFiles(project.save_path / "tensorboard" / f"trial-{trial.number:05d}")
        assert files.hparams() == pytest.approx(trial.params)
        steps = files.scalars()["reports/val_loss"]
        assert steps == [(step, pytest.approx(value)) for step, value in sorted(trial.intermediate_values.items())]
        assert files.status() == (2 if trial.state.name == "FAIL" else 1)
    assert found.trials[2].data.tags["cause"] == "exception: ValueError: a bad one"
    assert (project.save_path / found.trials[2].data.tags["log"]).is_file()


def test_a_server_that_is_down_costs_a_line_and_can_be_told_later(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, n_trials=3)
    done = project.run(f"log:mlflow={server.uri}", "log:tensorboard=true")
    told = done.stdout + done.stderr
    assert told.count(NOT_TOLD) == 1
    assert told.count("lacks 3 of 3 trials: Connection refused") == 1
    assert f"aimlhpo track {project.save_path}" in told
    assert len(list((project.save_path / "tensorboard").iterdir())) == 3
    assert main(["track", str(project.save_path)]) == 4
    assert "lacks 3 of 3 trials: Connection refused" in capsys.readouterr().err
    for _ in range(2):
        assert main(["track", str(project.save_path), "--mlflow", str(tmp_path / "mlruns")]) == 0
    assert f"mlflow {tmp_path / 'mlruns'} has 3 finished trials of s" in capsys.readouterr().out
    found = settled(str(tmp_path / "mlruns"))
    assert found.statuses == {"FINISHED": 3}
    assert [parent.info.status for parent in found.parents] == ["FINISHED"]


def test_a_server_that_dies_under_way_stops_nothing(tmp_path: Path, server: Server) -> None:
    server.start()
    project = Project(tmp_path, GATED, n_trials=3)
    running = project.start(f"log:mlflow={server.uri}", "log:tensorboard=true")
    wait_until_trial_1_is_told(project)  # the server's directory does not bear one that is killed while it writes
    server.kill()
    (tmp_path / "go").touch()
    told, _ = running.communicate(timeout=120)
    assert running.returncode == 0, told
    assert "lacks" in told
    assert told.count(NOT_TOLD) == 1
    server.start()
    assert main(["track", str(project.save_path)]) == 0
    found = settled(server.uri)
    assert found.statuses == {"FINISHED": 3}
    assert all(found.history(number, "reports/val_loss") == [(0, 10.0), (1, 9.0), (2, 8.0)] for number in range(3))


def test_a_killed_agent_leaves_nothing_that_its_successor_does_not_complete(tmp_path: Path) -> None:
    project = Project(tmp_path, GATED, n_trials=3)
    running = project.start(*both(tmp_path))
    wait_until_trial_1_is_told(project)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=120)
    (tmp_path / "go").touch()
    project.run(*both(tmp_path), "-r", "1")
    found = settled(str(tmp_path / "mlruns"))
    assert [parent.info.status for parent in found.parents] == ["FINISHED"]
    assert found.statuses == {"FINISHED": 3}
    for number in range(3):
        assert found.history(number, "reports/val_loss") == [(0, 10.0), (1, 9.0), (2, 8.0)]
        assert curve(project, number) == [(0, 10.0), (1, 9.0), (2, 8.0)]


def test_an_interrupted_study_is_not_called_finished_and_several_agents_make_one(tmp_path: Path) -> None:
    project = Project(tmp_path, GATED, n_trials=4)
    first = project.start(*both(tmp_path))
    wait_until_trial_1_is_told(project)
    second = project.start(*both(tmp_path), "-r", "1")
    steps = [project.save_path / f"steps-{number}" for number in (2, 3)]  # the first agent's slot is held by trial 1
    wait_until(lambda: any(path.exists() for path in steps), "a trial of the second agent")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 130
    (tmp_path / "go").touch()
    told, _ = second.communicate(timeout=120)
    assert second.returncode == 0, told
    found = settled(str(tmp_path / "mlruns"))
    assert [parent.info.status for parent in found.parents] == ["FINISHED"]
    assert found.statuses == {"FINISHED": 4}
    assert all(found.history(number, "reports/val_loss") == [(0, 10.0), (1, 9.0), (2, 8.0)] for number in range(4))


def test_neither_is_loaded_by_a_study_that_does_not_ask(tmp_path: Path) -> None:
    poison = tmp_path / "poison"
    poison.mkdir()
    for package in ("mlflow", "tensorboard"):
        (poison / f"{package}.py").write_text("raise SystemExit('loaded')\n")
    project = Project(tmp_path, n_trials=2)
    project.run(env={**os.environ, "PYTHONPATH": str(poison)})
    assert project.states() == {"COMPLETE": 2}
    assert not list(project.save_path.glob("logs/tracker-*"))
