"""The next trial is ready when the last one ends, and nothing is lost or counted where it never begins."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.agent.dispatcher import claims_ahead
from aimlhpo.errors import ExitCode
from aimlhpo.results.status import Status, read_status
from aimlhpo.storage.base import CLAIM, RELEASED, has_begun
from aimlhpo.storage.locks import locked
from tests.project import Project
from tests.waiting import wait_until

HELD = Path(__file__).parent / "objectives" / "held.py"


@contextmanager
def running(project: Project, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = project.start(*arguments)
    try:
        yield command
    finally:
        command.kill()
        command.communicate()


def held(folder: Path, **keys: Any) -> Project:
    return Project(folder, HELD, **{"n_trials": 10, "claim_ahead": True, **keys})


def claims(project: Project) -> dict[int, bool]:
    """Claimed trials that have parameters, and whether they have begun."""
    trials = [trial for trial in project.study().trials if trial.state.name == "RUNNING" and trial.params]
    return {trial.number: has_begun(trial.system_attrs[CLAIM]) for trial in trials}


def histories(project: Project) -> list[int]:
    """How often each trial was interrupted."""
    return [trial.system_attrs.get(RELEASED, {}).get("attempts", 0) for trial in project.study().trials]


def status(project: Project) -> Status:
    return read_status(project.study(), project.config)


def wait_for_claims(project: Project, expected: dict[int, bool]) -> None:
    for number in (number for number, begun in expected.items() if begun):
        wait_until((project.folder / f"begun-{number}").exists, f"trial {number} to begin")
    wait_until(lambda: claims(project) == expected, f"the claims {expected}")


def test_each_slot_has_its_next_trial_ready(tmp_path: Path) -> None:
    project = held(tmp_path)
    with running(project, "--local", "2"):
        wait_for_claims(project, {0: True, 1: True, 2: False, 3: False})
        counts = status(project).counts
        assert (counts.running, counts.ready) == (2, 2)
        assert [len(agent.trials) for agent in status(project).agents] == [2]


def test_slot_whose_worker_is_late_has_its_next_trial_ready_too(tmp_path: Path) -> None:
    project = held(tmp_path, model={"one_is_late": True})
    with running(project, "--local", "2"):
        wait_for_claims(project, {0: True, 1: False})
        (tmp_path / "begin").touch()
        wait_for_claims(project, {0: True, 1: True, 2: False, 3: False})


def test_next_trial_starts_while_the_ledger_cannot_be_asked(tmp_path: Path) -> None:
    project = held(tmp_path, n_trials=4)
    with running(project) as command:
        wait_for_claims(project, {0: True, 1: False})
        with locked(project.config.paths.lock):
            (tmp_path / "end-0").touch()
            wait_until((tmp_path / "begun-1").exists, "the next trial")
        (tmp_path / "end").touch()
        assert command.wait(60) == 0
    assert project.states() == {"COMPLETE": 4}


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_beginning_is_written_with_the_last_result(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str
) -> None:
    project = held(tmp_path, storage=make_storage_url(kind))
    with running(project):
        wait_until((tmp_path / "begun-0").exists, "the first trial")
        (tmp_path / "end-0").touch()
        wait_until(lambda: claims(project) == {1: True, 2: False}, "the second trial's beginning")
    assert project.states() == {"COMPLETE": 1, "RUNNING": 2}


def test_stop_gives_back_what_has_not_begun_and_counts_no_attempt(tmp_path: Path) -> None:
    project = held(tmp_path)
    with running(project, "--local", "2") as command:
        wait_for_claims(project, {0: True, 1: True, 2: False, 3: False})
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == ExitCode.INTERRUPTED
    assert project.states() == {"WAITING": 4}
    assert histories(project) == [1, 1, 0, 0]
    (tmp_path / "end").touch()
    project.run("-r", "1", "--local", "2")
    assert project.states() == {"COMPLETE": 10}
    assert [record["attempts"] for record in project.records()[:4]] == [2, 2, 1, 1]


def test_death_of_the_agent_counts_no_attempt_for_what_has_not_begun(tmp_path: Path) -> None:
    project = held(tmp_path)
    with running(project, "--local", "2") as command:
        wait_for_claims(project, {0: True, 1: True, 2: False, 3: False})
        command.kill()
        command.wait()
    assert status(project).counts.waiting == 4
    assert histories(project) == [1, 1, 0, 0]


def test_slot_that_is_free_elsewhere_does_not_wait_behind_a_long_trial(tmp_path: Path) -> None:
    project = held(tmp_path, n_trials=4)
    with running(project) as long:
        wait_for_claims(project, {0: True, 1: False})
        for number in (1, 2, 3):
            (tmp_path / f"end-{number}").touch()
        with running(project, "-r", "1") as elsewhere:
            wait_until(lambda: all((tmp_path / f"ended-{n}").exists() for n in (1, 2, 3)), "all but the long one")
            assert not (tmp_path / "ended-0").exists()
            (tmp_path / "end").touch()
            assert long.wait(60) == elsewhere.wait(60) == 0
    assert project.states() == {"COMPLETE": 4}
    assert histories(project) == [0, 0, 0, 0]


def test_nothing_is_claimed_ahead_where_that_is_not_wanted(tmp_path: Path) -> None:
    project = held(tmp_path, claim_ahead=False, n_trials=3)
    with running(project) as command:
        wait_for_claims(project, {0: True})
        (tmp_path / "end-0").touch()
        wait_for_claims(project, {1: True})
        (tmp_path / "end").touch()
        assert command.wait(60) == 0
    assert project.states() == {"COMPLETE": 3}


def test_by_itself_it_begins_when_two_trials_are_complete_for_each_slot(tmp_path: Path) -> None:
    project = held(tmp_path, claim_ahead="auto", n_trials=5)
    with running(project) as command:
        for number in (0, 1):
            wait_for_claims(project, {number: True})
            (tmp_path / f"end-{number}").touch()
        wait_for_claims(project, {2: True, 3: False})
        (tmp_path / "end").touch()
        assert command.wait(60) == 0
    assert project.states() == {"COMPLETE": 5}


def test_of_long_trials_each_is_sampled_when_its_slot_is_free() -> None:
    assert [claims_ahead(complete, 8, [1.0] * complete) for complete in (0, 15, 16, 100)] == [False, False, True, True]
    assert not claims_ahead(100, 8, [3600.0] * 100)
    assert claims_ahead(100, 8, [3600.0, *([1.0] * 15)]), "one of them may have taken long"


def test_one_worker_with_a_seed_finds_the_same_again(tmp_path: Path) -> None:
    objective = """
        import time
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                time.sleep(conf["model"]["units"] * (trial.number % 3) / 100)
                return {"val_loss": (conf["model"]["x"] - 0.3) ** 2}
    """
    found = []
    for name, units in (("fast", 0), ("slow", 10)):
        (tmp_path / name).mkdir()
        project = Project(
            tmp_path / name, objective, n_trials=8, seed=7, sampler={"type": "TPESampler", "n_startup_trials": 2}
        )
        project.model.write_text(f"model: {{x: 0.9, units: {units}}}\n")
        project.run()
        found.append([trial.params["x"] for trial in project.study().trials])
    assert found[0] == found[1]
    assert len(set(found[0])) == 8


def has_ended(file: Path) -> bool:
    """Whether the process is gone that has written its number into the file."""
    return file.exists() and file.read_text() != "" and not Path("/proc", file.read_text()).exists()


def test_slot_that_is_free_elsewhere_does_not_wait_behind_a_trial_that_has_its_gpu_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    project = held(tmp_path, model={"needs_all": True}, n_trials=4, gpu=True, on_oom="retry_alone")
    with running(project, "--local", "2") as alone:
        wait_for_claims(project, {0: True, 1: True, 2: False, 3: False})
        (tmp_path / "full").touch()
        wait_until(lambda: has_ended(tmp_path / "again"), "the end of the worker that is out of memory")
        for number in (1, 2, 3):
            (tmp_path / f"end-{number}").touch()
        with running(project, "-r", "1", "--local", "1") as elsewhere:
            wait_until(lambda: all((tmp_path / f"ended-{n}").exists() for n in (2, 3)), "all but the one alone")
            assert not (tmp_path / "ended-0").exists()
            (tmp_path / "end").touch()
            assert alone.wait(60) == elsewhere.wait(60) == 0
    assert project.states() == {"COMPLETE": 4}
