"""Workers and agents are killed while trials pause, are promoted and go on: exact budget, no epoch lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.faults.crew import Crew
from tests.faults.evidence import ROOT

pytestmark = pytest.mark.faults
MakeUrl = Callable[[str], str]
N_TRIALS, EPOCHS = 27, 9

# Each epoch adds a line to a file of the trial's, before its checkpoint is written.
OBJECTIVE = f"""
    import json, os, sys, time
    from pathlib import Path
    from aimlhpo import BaseObjective
    from aimlhpo.callbacks import report_or_prune

    sys.path.insert(0, {str(ROOT)!r})
    from tests.faults.evidence import note

    class Objective(BaseObjective):
        def train(self, trial, conf):
            x, folder = conf["model"]["x"], Path(__file__).parent / "evidence"
            state = self.checkpoint_dir(trial) / "epochs"
            for epoch in range(int(state.read_text()) if state.exists() else 0, {EPOCHS}):
                time.sleep(0.15)
                note(folder, trial.number, "epoch", [trial.attempt, epoch])
                state.with_suffix(".new").write_text(str(epoch + 1))
                os.replace(state.with_suffix(".new"), state)
                report_or_prune(trial, x + epoch, epoch)
            return {{"val_loss": x}}
"""


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_kills_while_trials_pause_and_are_promoted(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    pruner = {"type": "ASHA", "mode": "promotion", "max_resource": EPOCHS}
    with Crew(
        tmp_path, 2, 2, objective=OBJECTIVE, storage=make_storage_url(kind), n_trials=N_TRIALS, pruner=pruner
    ) as crew:
        crew.running(4)
        for fault in (crew.kill_worker, crew.kill_worker, crew.kill_agents, crew.kill_worker, crew.kill_agents):
            time.sleep(crew.random.uniform(0.3, 1.5))
            fault()
            crew.staff()
        finished = 0
        while finished < N_TRIALS or crew.agents:
            time.sleep(0.2)
            counts = crew.status().counts
            finished = counts.finished
            assert finished + counts.running + counts.paused <= N_TRIALS
            if finished < N_TRIALS:
                crew.staff()
        trials = crew.study.get_trials()
    killed = [trial for trial in trials if trial.state == TrialState.FAIL]
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == N_TRIALS
    assert len(killed) + len(ended) == len(trials)
    for trial in ended:
        attempts = [json.loads(line)["value"] for line in (tmp_path / "evidence" / f"{trial.number:05d}").open()]
        assert attempts == sorted(attempts), f"trial {trial.number} ran in two places"
        epochs = [epoch for _, epoch in attempts]
        assert sorted(set(epochs)) == list(range(max(epochs) + 1)), f"trial {trial.number} left out an epoch"
        assert trial.intermediate_values == {epoch: trial.params["x"] + epoch for epoch in trial.intermediate_values}
        assert len(epochs) - len(set(epochs)) <= 2, f"trial {trial.number} did not go on from its checkpoint"
        assert (trial.state == TrialState.COMPLETE) == (max(epochs) == EPOCHS - 1)
    assert any(trial.state == TrialState.COMPLETE for trial in ended)
