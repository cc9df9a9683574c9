"""Sampling learns from what the study holds; in a process of its own nothing waits for it, and it may die."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from optuna.samplers import GPSampler, QMCSampler, RandomSampler, TPESampler

from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.requests import Claim
from aimlhpo.search.queues import FixedSampler
from aimlhpo.search.sampling import MOST_DEATHS, SamplingProcess, needs_process
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.base import own
from tests.ledgers import SingleRequestLedger
from tests.project import Project
from tests.waiting import wait_until

TPE = {"type": "TPESampler", "n_startup_trials": 2}


def test_later_trials_are_better_than_chance(tmp_path: Path) -> None:
    project = Project(tmp_path, storage="journal", n_trials=60, seed=1, sampler={"type": "TPESampler"})
    project.run("--local", "1")
    values = [trial.value for trial in project.study().trials if trial.value is not None]
    assert mean(values[40:]) < 0.3 * mean(values[:10])


class Asked:
    """A study with claimed trials, and a sampling process for it."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.project = Project(folder, storage=f"journal:///{folder}/s.journal", sampler=TPE, seed=5, **keys)
        config = self.project.config
        self.study = begin_study(config)
        self.study._storage = own(self.study._storage)
        registry = Registry(config.paths.leases, 60.0)
        self.ledger = SingleRequestLedger(self.study, config.paths, 100, "here", registry)
        self.process = SamplingProcess(config, "TPESampler")

    def claim(self) -> Claim:
        claim = self.ledger.claim(0, "cpu")
        assert isinstance(claim, Claim)
        return claim


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_what_is_suggested_is_left_to_the_agent_to_write(asked: Asked) -> None:
    asked.process.start()
    claims = [asked.claim(), asked.claim()]
    suggested = asked.process.sample([(claim.trial_id, claim.number) for claim in claims])
    asked.process.close()
    assert suggested is not None
    assert [suggestion.number for suggestion in suggested] == [0, 1]
    assert all(0 <= suggestion.values["x"] <= 1 and suggestion.operations for suggestion in suggested)
    assert [trial.params for trial in asked.study.trials] == [{}, {}]


def test_death_of_the_process_changes_nothing(asked: Asked) -> None:
    asked.process.start()
    claim = asked.claim()
    trials = [(claim.trial_id, claim.number)]
    before = asked.process.sample(trials)
    os.kill(asked.process.pid, signal.SIGKILL)
    after = asked.process.sample(trials)
    asked.process.close()
    assert before is not None
    assert after is not None
    assert before[0].values == after[0].values


def test_process_that_always_dies_ends_the_study(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    asked.process.start()
    with pytest.raises(StudyFailed, match=f"cannot suggest values for trial 7: its process died {MOST_DEATHS} times"):
        asked.process.sample([(1, 7)])
    asked.process.close()


def test_nobody_waits_for_a_process_that_is_closed(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    asked.process.start()
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(asked.process.sample([(1, 7)])))
    waiting.start()
    asked.process.close()
    waiting.join(60)
    assert answers == [None]


def test_who_is_asked_in_a_process() -> None:
    assert needs_process(TPESampler())
    assert needs_process(GPSampler())
    assert not any(map(needs_process, (RandomSampler(), QMCSampler(), FixedSampler())))


# Trials after the first two are sampled by a TPESampler whose process is stopped in the middle.
REPORTING = """
    import time
    from pathlib import Path
    from aimlhpo import BaseObjective

    FOLDER = Path(__file__).parent

    class Objective(BaseObjective):
        def train(self, trial, conf):
            (FOLDER / f"begun-{trial.number}").touch()
            trial.report(0.0, 0)
            step = 1
            while not (FOLDER / f"end-{trial.number}").exists() and not (FOLDER / "end").exists():
                trial.report(float(step), step)
                step += 1
                time.sleep(0.05)
            return {"val_loss": conf["model"]["x"]}
"""


def samplers(agent: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"aimlhpo.search" in words:
            found.append(int(child))
    return found


def test_reports_and_results_are_written_while_a_sampler_thinks(tmp_path: Path) -> None:
    project = Project(tmp_path, REPORTING, n_trials=8, sampler=TPE, claim_ahead=True)
    command = project.start("--local", "2")
    try:
        wait_until(lambda: (tmp_path / "begun-0").exists() and (tmp_path / "begun-1").exists(), "two trials")
        wait_until(lambda: len([t for t in trials(project) if t.params]) == 4, "two trials ahead")
        (sampler,) = samplers(command.pid)
        os.kill(sampler, signal.SIGSTOP)
        for number in (0, 1):
            (tmp_path / f"end-{number}").touch()
        wait_until(lambda: [t.state.name for t in trials(project)[:2]] == ["COMPLETE"] * 2, "both results")
        wait_until(lambda: all(t.intermediate_values for t in trials(project)[:4]), "reports of the next trials")
        assert not any(t.params for t in trials(project)[4:])
        os.kill(sampler, signal.SIGCONT)
        (tmp_path / "end").touch()
        output, _ = command.communicate(timeout=120)
        assert command.returncode == 0, output
    finally:
        command.kill()
        command.communicate()
    assert project.states() == {"COMPLETE": 8}


def trials(project: Project) -> list[Any]:
    return project.study().trials


def test_stop_does_not_wait_for_a_sampler(tmp_path: Path) -> None:
    project = Project(tmp_path, REPORTING, n_trials=8, sampler=TPE, claim_ahead=True)
    command = project.start()
    try:
        wait_until((tmp_path / "begun-0").exists, "a trial")
        wait_until(lambda: len([t for t in trials(project) if t.params]) == 2, "a trial ahead")
        (sampler,) = samplers(command.pid)
        os.kill(sampler, signal.SIGSTOP)
        (tmp_path / "end-0").touch()
        wait_until(lambda: len(trials(project)) == 3, "a claim that waits for its parameters")
        command.send_signal(signal.SIGINT)
        output, _ = command.communicate(timeout=60)
        assert command.returncode == 130, output
    finally:
        command.kill()
        command.communicate()
    assert project.states() == {"COMPLETE": 1, "WAITING": 2}
    assert json.dumps([trial.params for trial in project.study().trials][2]) == "{}"


def test_it_leaves_the_other_cpus_to_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = Asked(tmp_path)
    asked.process.start()
    with closing(asked.process):
        environment = Path(f"/proc/{asked.process.pid}/environ").read_text().split("\0")
    assert {"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=3"} <= set(environment)
