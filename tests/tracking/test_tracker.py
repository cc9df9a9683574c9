"""The agent's side: the child that tells tracking tools may die, and may not keep the agent."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread

import pytest

from aimlhpo.check.settings import load_config
from aimlhpo.config.schema import Config, MlflowSection
from aimlhpo.ledger.leases import Election
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.study import load_study
from aimlhpo.tracking import tracker as module
from aimlhpo.tracking.tracker import Delivered, Tracker, TrackingDone, TrackingReady
from tests.project import Project
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _told_of_trouble_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 60.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A study with one finished trial, that asks for TensorBoard."""
    project = Project(tmp_path)
    config = load_config(project.hyperparameters, project.model, ["log:tensorboard=true"])
    begin_study(config)
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
        tracker.poll()
        wait_until(lambda: written(config), "the first trial")
        pid = child()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            os.kill(pid, number)
        tracker.poll()
        assert lines == []
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(tracker.poll() or lines), "the news of its death")
        assert "is started again later: it has died" in lines[0]
        add_trial(config)
        tracker.finish(None)
    assert written(config, 1)
    assert len(lines) == 1


def test_a_child_that_cannot_be_started_costs_a_line(config: Config) -> None:
    lines: list[str] = []
    config.paths.logs.rmdir()
    with Tracker(config, "agent", lines.append) as tracker:
        tracker.poll()
        tracker.poll()
    assert len(lines) == 1
    assert "is started again later" in lines[0]


def test_a_child_that_hangs_does_not_keep_the_agent(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module, "_QUIET", 0.0)
    monkeypatch.setattr(module, "_HURRIED_END", 0.5)
    with Tracker(config, "agent", lines.append) as tracker:
        tracker.poll()
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
        one.poll()
        with Tracker(config, "two", pytest.fail) as two:
            two.poll()
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
        monkeypatch.setattr(module.time, "sleep", lambda seconds: others.pop_all().close())  # it ends meanwhile
        tracker.finish(None)
    assert written(config)


AGENT = """
import pickle, signal, sys
from aimlhpo.tracking.tracker import Tracker

with Tracker(pickle.load(sys.stdin.buffer), "killed", print) as tracker:
    tracker.poll()
    print(tracker._child.pid, flush=True)
    signal.pause()
"""


def test_the_child_of_a_killed_agent_is_waited_for(config: Config) -> None:
    with Popen([sys.executable, "-c", AGENT], stdin=PIPE, stdout=PIPE, cwd=ROOT) as agent:
        pickle.dump(config, agent.stdin)
        agent.stdin.close()
        orphan = int(agent.stdout.readline())
        wait_until(lambda: written(config), "the first trial")
        os.kill(orphan, signal.SIGSTOP)
        agent.kill()
    try:
        with Tracker(config, "next", pytest.fail) as tracker:
            tracker.poll()
            assert child() != orphan
            with Election(config.paths.tracking_lock) as held:
                assert not held.won()
            add_trial(config)
            assert not written(config, 1)
            os.kill(orphan, signal.SIGCONT)
            tracker.finish(None)
    finally:
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGCONT)
    assert written(config, 1)


@pytest.mark.parametrize(("first", "told"), [(Delivered(), 0), (TrackingReady(), 2)])
def test_a_child_may_take_longer_to_load_than_a_server_to_answer(
    config: Config, monkeypatch: pytest.MonkeyPatch, first: object, told: int
) -> None:
    monkeypatch.setattr(module, "_REMOTE_SILENCE", 0.0)
    log = config.log.model_copy(update={"mlflow": MlflowSection(uri="http://127.0.0.1:1", experiment="s")})
    lines: list[str] = []
    mine, theirs = Pipe()

    def be_the_child() -> None:
        theirs.recv()
        theirs.send(first)
        if told == 0:
            time.sleep(0.3)
            theirs.send(TrackingDone([]))

    with Tracker(replace(config, log=log), "agent", lines.append) as tracker, theirs:
        monkeypatch.setattr(tracker, "_start", lambda: setattr(tracker, "_connection", mine))
        helper = Thread(target=be_the_child)
        helper.start()
        tracker.finish(None)
        helper.join()
    assert len(lines) == told
