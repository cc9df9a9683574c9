"""ASHA by promotion: trials pause at a rung, the best go on from their checkpoint, the rest ends PRUNED."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.cli.status import screen
from aimlhpo.results.status import read_status
from aimlhpo.search.asha import Ladder
from tests.command_project import CommandProject
from tests.project import Project
from tests.waiting import wait_until

RESUMING = """
    import json, os
    from aimlhpo import BaseObjective
    from aimlhpo.callbacks import report_or_prune

    class Objective(BaseObjective):
        def train(self, trial, conf):
            state = self.checkpoint_dir(trial) / "state.json"
            done = json.loads(state.read_text()) if state.exists() else []
            for epoch in range(len(done), 9):
                done.append([epoch, trial.attempt])
                state.with_suffix(".new").write_text(json.dumps(done))
                os.replace(state.with_suffix(".new"), state)
                report_or_prune(trial, conf["model"]["x"] + 1 / (1 + epoch), epoch)
            return {"val_loss": conf["model"]["x"], "epochs": json.dumps(done)}
"""
PROMOTION = {"type": "ASHA", "mode": "promotion", "max_resource": 9}


def project(folder: Path, objective: str = RESUMING, **keys: Any) -> Project:
    return Project(folder, objective, **{"n_trials": 18, "pruner": PROMOTION, "seed": 1, **keys})


def epochs(trial: FrozenTrial) -> int:
    return len(trial.intermediate_values)


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_the_best_third_goes_on_at_each_rung(storage: str, tmp_path: Path) -> None:
    made = project(tmp_path, **({"storage": "journal"} if storage == "journal" else {}))
    made.run("--local", "2")
    trials = made.study().trials
    assert len(trials) == 18
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    lengths = sorted(map(epochs, trials))
    assert set(lengths) == {1, 3, 9}
    assert 6 <= sum(length > 1 for length in lengths) <= 12
    best = min(trials, key=lambda trial: trial.params["x"])
    assert best.state == TrialState.COMPLETE
    assert all(trial.state == TrialState.COMPLETE for trial in trials if epochs(trial) == 9)
    assert all(trial.value == trial.intermediate_values[max(trial.intermediate_values)]
               for trial in trials if trial.state == TrialState.PRUNED)  # fmt: skip


def test_a_promoted_trial_goes_on_from_its_checkpoint_in_a_new_attempt(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.run()
    complete = [trial for trial in made.study().trials if trial.state == TrialState.COMPLETE]
    for trial in complete:
        done = json.loads(trial.user_attrs["aimlhpo"]["metrics"]["epochs"])
        assert done == [[0, 1], [1, 2], [2, 2], *([epoch, 3] for epoch in range(3, 9))]
        assert trial.user_attrs["aimlhpo"]["attempts"] == 3
    assert complete


def test_what_is_paused_is_counted_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated = RESUMING.replace(
        "for epoch in",
        f"import pathlib, time\n            gate = pathlib.Path({str(gate)!r})\n            "
        "while trial.number == 8 and not gate.exists(): gate.with_name('closed').touch(); time.sleep(0.05)\n"
        "            for epoch in",
    )
    made = project(tmp_path, gated, claim_ahead=False)
    agent = made.start()
    wait_until((tmp_path / "closed").exists, "trial 8")
    status = read_status(made.study(), made.config)
    agent.terminate()
    agent.communicate()
    assert status.counts.paused >= 2
    assert status.counts.paused + status.counts.running + status.counts.finished == 9
    after = read_status(made.study(), made.config)
    assert after.counts.paused == status.counts.paused
    assert [trial.number for trial in after.interrupted] == [8]
    assert f"{after.counts.paused} paused, 1 waiting" in " ".join(screen(after))
    gate.touch()
    made.run("--reload", "1")
    assert sum(made.states().values()) == 18
    assert set(made.states()) == {"COMPLETE", "PRUNED"}


def test_a_trial_that_leaves_no_checkpoint_is_told_once(tmp_path: Path) -> None:
    forgetful = RESUMING.replace("state.write", "# checkpoint\n").replace("os.replace", "print")
    shown = project(tmp_path, forgetful.replace('state.with_suffix(".new").write_text', "print")).run().stdout
    assert shown.count("paused without a checkpoint") == 1


def test_hyperband_pauses_at_the_rungs_of_each_bracket(tmp_path: Path) -> None:
    made = project(tmp_path, pruner={**PROMOTION, "brackets": 3}, n_trials=12)
    made.run()
    trials, name = made.study().trials, made.study().study_name
    assert len(trials) == 12
    ladder = Ladder(1, 9, 3, brackets=3)
    for trial in trials:
        rungs = [*ladder.rungs(ladder.bracket(name, trial.number)), 9]
        assert epochs(trial) in rungs, trial
    assert {ladder.bracket(name, trial.number) for trial in trials} == {0, 1, 2}


def test_a_failed_trial_does_not_count_and_one_that_ends_by_itself_does(tmp_path: Path) -> None:
    odd = RESUMING.replace(
        "for epoch in", "if trial.number == 2: raise RuntimeError('broken')\n"
        "            if trial.number == 3: return {'val_loss': 5.0}\n            for epoch in"
    )  # fmt: skip
    made = project(tmp_path, odd, n_trials=9)
    made.run()
    states = made.states()
    assert states["FAIL"] == 1
    assert states["COMPLETE"] + states["PRUNED"] == 9


def test_a_program_is_paused_and_goes_on(tmp_path: Path) -> None:
    script = """
        import json, os, pathlib, signal, sys
        state = pathlib.Path(os.environ["AIMLHPO_CHECKPOINT_DIR"]) / "epochs"
        x = float(sys.argv[1].partition("=")[2])
        for epoch in range(int(state.read_text()) if state.exists() else 0, 3):
            state.write_text(str(epoch + 1))
            print(json.dumps({"epoch": epoch, "val_loss": x}), flush=True)
            if os.environ["AIMLHPO_ATTEMPT"] == "1":
                signal.pause()
        print(json.dumps({"val_loss": x, "attempt": os.environ["AIMLHPO_ATTEMPT"]}))
    """
    pruner = {"type": "ASHA", "mode": "promotion", "max_resource": 3}
    made = CommandProject(tmp_path, script, pruner=pruner, n_trials=3)
    made.run()
    assert made.states() == {"COMPLETE": 1, "PRUNED": 2}
    best = made.study().best_trial
    assert best.params["x"] == min(trial.params["x"] for trial in made.study().trials)
    assert best.intermediate_values.keys() == {0, 1, 2}
    assert best.user_attrs["aimlhpo"]["metrics"]["attempt"] == "2"
