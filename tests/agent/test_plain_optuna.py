"""Plain Optuna asks and tells on a study while agents work on it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import record_of
from tests.faults.evidence import ROOT
from tests.project import Project
from tests.waiting import wait_until

OBJECTIVE, STEPS = Path(__file__).parent / "objectives" / "slow.py", 5


def test_a_journal_serves_agents_and_plain_optuna_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    keys = {"storage": f"journal://{journal}", "n_trials": 100_000}
    project = Project(tmp_path, OBJECTIVE, model={"steps": STEPS}, **keys)
    begin_study(project.config)
    project.config.write_snapshot()
    command = [sys.executable, "-m", "tests.faults.agent", str(project.save_path), "2"]
    agents = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(journal))))

        def workers() -> set[str]:
            return {record_of(trial)["worker"] for trial in study.get_trials(states=(TrialState.COMPLETE,))}

        wait_until(lambda: len(workers()) == 4, "a trial of each slot")
        mine: dict[int, float] = {}

        def have_both_worked() -> bool:
            theirs = (trial.number for trial in study.get_trials(states=(TrialState.COMPLETE,)))
            return len(mine) >= 20 and any(number > min(mine) and number not in mine for number in theirs)

        longest = 0.0
        while not have_both_worked():
            begun = time.monotonic()
            trial = study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            mine[trial.number] = 100.0 + len(mine)
            study.tell(trial, mine[trial.number])
            longest = max(longest, time.monotonic() - begun)
        assert all(agent.poll() is None for agent in agents)
    finally:
        for agent in agents:
            agent.terminate()
        told = [agent.communicate(timeout=120)[1] for agent in agents]
    assert longest < 30, told  # Optuna waits that long for a lock that it takes for that of a dead process

    trials = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(journal)))).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.number: trial.value for trial in trials if trial.number in mine} == mine
    theirs = [trial for trial in trials if trial.number not in mine]
    assert {trial.state for trial in theirs} <= {TrialState.COMPLETE, TrialState.WAITING}  # given back in the end
    for trial in theirs:
        if trial.state == TrialState.COMPLETE:
            assert trial.intermediate_values == dict.fromkeys(range(STEPS), 1.0)
