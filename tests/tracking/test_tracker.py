"""The agent's side: the child that tells tracking tools may die, and may not keep the agent."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest

from aimlhpo.config import Config, load_config
from aimlhpo.election import Election
from aimlhpo.storage import create_or_load_study, load_study
from aimlhpo.tracking import tracker as module
from aimlhpo.tracking.tracker import Tracker
from tests.project import Project
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _told_of_trouble_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNTOLD", 60.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A study with one finished trial, that asks for TensorBoard."""
    project = Project(tmp_path)
    config = load_config(project.hyperparameters, project.model, ["log:tensorboard=true"])
    create_or_load_study(config)
    add_trial(config)
    return config


def children(parent: int) -> list[int]:
    """The process ids of its children that track."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in pids if b"aimlhpo.tracking" in _command(pid)]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def child() -> int:
    """The process id of this process's only child that tracks; it has its name soon after its start."""
    wait_until(lambda: bool(children(os.getpid())), "the child")
    (found,) = children(os.getpid())
    return found


def written(config: Config, number: int = 0) -> bool:
    return (config.paths.save_path / "tensorboard" / f"trial-{number:05d}").exists()


def add_trial(config: Config) -> None:
    """One more finished trial."""
    study = load_study(config)
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0.0, 1.0))


def test_signals_to_all_of_a_job_do_not_end_it_and_its_death_is_made_up_for(config: Config) -> None:
    lines: list[str] = []
    with Tracker(config, "agent", lines.append) as tracker:
        tracker.look()
        wait_until(lambda: written(config), "the first trial")
        pid = child()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            os.kill(pid, number)
        tracker.look()
        assert lines == []
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(tracker.look() or lines), "the news of its death")
        assert "is started again later: it has died" in lines[0]
        add_trial(config)
        tracker.finish(None)
    assert written(config, 1)
    assert len(lines) == 1


def test_a_child_that_cannot_be_started_costs_a_line(config: Config) -> None:
    lines: list[str] = []
    config.paths.logs.rmdir()
    with Tracker(config, "agent", lines.append) as tracker:
        tracker.look()
        tracker.look()
    assert len(lines) == 1
    assert "is started again later" in lines[0]


def test_a_child_that_hangs_does_not_keep_the_agent(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module, "_UNTOLD", 0.0)
    monkeypatch.setattr(module, "_HURRIED_END", 0.5)
    with Tracker(config, "agent", lines.append) as tracker:
        tracker.look()
        pid = child()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        tracker.finish("stopped by user")
        assert time.monotonic() - began < 30
    assert "tracking is not complete: there was no more time" in lines
    assert f"aimlhpo track {config.paths.save_path}" in lines[-1]
    assert not Path(f"/proc/{pid}").exists()


def test_one_agent_tracks_and_hands_over(config: Config) -> None:
    with Tracker(config, "one", pytest.fail) as one:
        one.look()
        with Tracker(config, "two", pytest.fail) as two:
            two.look()
            two.finish(None)  # returns at once: the first goes on
            assert child()
        one.finish(None)
    with Tracker(config, "three", pytest.fail) as three:
        add_trial(config)
        three.finish(None)
    assert written(config, 1)


def test_an_agent_waits_for_one_that_is_about_to_end(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HANDOVER", 60.0)
    with ExitStack() as others, Tracker(config, "agent", pytest.fail) as tracker:
        ending = others.enter_context(Election(config.paths.state / "tracker.lock"))
        assert ending.won()
        tracker.finish(None)
        assert not written(config)
        ending.resign()
        Timer(0.3, others.pop_all().close).start()
        tracker.finish(None)
    assert written(config)
