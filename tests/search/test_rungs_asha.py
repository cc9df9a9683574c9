"""ASHA: rungs, brackets and ranks; pruning by stopping; promotion, where trials pause and the best go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.agent.trial_store import Pruning
from aimlhpo.cli.verbs.status import screen
from aimlhpo.errors import ConfigError
from aimlhpo.results.status import read_status
from aimlhpo.search.rungs import ASHA, Ladder, Promotion, ranked
from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.base import OpenTrial, own
from tests.command_project import CommandProject
from tests.project import Project
from tests.waiting import wait_until


def test_resources_count_from_one_where_reports_count_from_zero() -> None:
    ladder = Ladder(1, 27, 3)
    assert ladder.resources == [1, 3, 9]
    assert [ladder.step(resource) for resource in ladder.resources] == [0, 2, 8]
    assert Ladder(1, 27, 3, first_step=1).step(9) == 9
    assert Ladder(2, 16, 2).resources == [2, 4, 8]
    assert Ladder(1, 10, 3).resources == [1, 3, 9]


def test_a_rung_takes_the_first_report_that_reaches_it() -> None:
    ladder = Ladder(3, 27, 3)
    assert ladder.value_at(3, {0: 5.0, 1: 4.0}) is None
    assert ladder.value_at(3, {0: 5.0, 2: 3.0, 4: 1.0}) == 3.0
    assert ladder.value_at(3, {9: 1.0, 4: 2.0}) == 2.0


def test_brackets_leave_out_the_first_rungs_and_share_the_trials_by_weight() -> None:
    ladder = Ladder(1, 27, 3, brackets=4)
    assert [ladder.rungs(bracket) for bracket in range(4)] == [[1, 3, 9], [3, 9], [9], []]
    drawn = [ladder.bracket("s", number) for number in range(3000)]
    shares = [drawn.count(bracket) / 3000 for bracket in range(4)]
    assert shares == pytest.approx([27 / 49, 12 / 49, 6 / 49, 4 / 49], abs=0.03)


def test_ranks_put_nan_last_and_the_older_of_two_alike_first() -> None:
    values = {0: float("nan"), 1: 2.0, 2: 1.0, 3: 1.0}
    assert ranked(values, maximize=False) == [2, 3, 1, 0]
    assert ranked(values, maximize=True) == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"mode": "promote"}, "mode", "'promote' is no mode of ASHA"),
        ({"reduction_factor": 1}, "reduction_factor", "1 is too small"),
        ({"min_resource": 0}, "min_resource", "0 is too small"),
        ({"min_resource": 9}, "max_resource", "9 is not more than min_resource, 9"),
        ({"brackets": 4}, "brackets", "4 is not possible"),
        ({"brackets": 0}, "brackets", "0 is not possible"),
        ({"first_step": 2}, "first_step", "2 is not a first step"),
    ],
)
def test_arguments_that_make_no_rungs(arguments: dict[str, Any], where: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ASHA(**{"max_resource": 9, **arguments})
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [(where, found)]


def study_with(pruner: ASHA, direction: str = "minimize") -> optuna.Study:
    storage = own(optuna.storages.InMemoryStorage())
    return optuna.create_study(study_name="s", storage=storage, pruner=pruner, direction=direction)


def running(study: optuna.Study, *values: float) -> int:
    trial_id = study._storage.create_new_trial(study._study_id)
    for step, value in enumerate(values):
        study._storage.set_trial_intermediate_value(trial_id, step, value)
    return int(trial_id)


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_stopping_keeps_the_best_third_of_those_that_have_come_to_a_rung(direction: str, sign: float) -> None:
    study = study_with(ASHA(max_resource=9), direction)
    pruning = Pruning(study, 0)
    stopped = [pruning.decide(running(study, sign * value), [0]) for value in (5.0, 6.0, 4.0, 4.5, 3.0, 4.2, 3.5)]
    #                     the first; worse; the best so far; worse; the best so far; third of six; second of seven
    assert stopped == [False, True, False, True, False, True, False]


def test_stopping_asks_at_a_rung_only_and_nan_is_never_good_enough() -> None:
    study = study_with(ASHA(max_resource=9))
    pruning = Pruning(study, 0)
    assert not pruning.decide(running(study, 1.0), [0])
    good = running(study, 0.5, 99.0)
    assert not pruning.decide(good, [0, 1])
    study._storage.set_trial_intermediate_value(good, 2, 99.0)
    assert not pruning.decide(good, [2])
    assert pruning.decide(running(study, float("nan")), [0])


def paused(number: int, rung: int) -> OpenTrial:
    return OpenTrial(number, number, TrialState.WAITING, paused={"rung": rung})


def test_promotion_takes_the_best_paused_trial_of_the_highest_rung() -> None:
    study = study_with(ASHA(max_resource=9, mode="promotion"))
    promotion = Promotion.of(study, 0)
    assert promotion is not None
    for values in ((5.0,), (4.0,), (3.0,), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)):
        running(study, *values)
    waiting = [paused(number, 1) for number in range(3)]
    assert promotion.next([]) is None
    assert promotion.next([*waiting, paused(3, 3), paused(4, 3)]) is None  # one of five goes on, and has gone on
    running(study, 0.5)
    promoted = promotion.next([*waiting, paused(3, 3), paused(4, 3), paused(5, 1)])
    assert promoted is not None
    assert promoted.number == 5
    running(study, 2.5, 2.5, 2.5)
    promoted = promotion.next([*waiting, paused(3, 3), paused(4, 3), paused(5, 1)])
    assert promoted is not None
    assert promoted.number == 4  # the best of three at the higher rung


def test_a_study_without_promotion_has_none() -> None:
    assert Promotion.of(study_with(ASHA(max_resource=9)), 0) is None
    assert Promotion.of(study_with(ASHA(max_resource=9, mode="promotion")), None) is None


# --- Promotion, run as a study ---


def resuming(first: str = "pass", *, saves: bool = True) -> str:
    """An objective that goes on from its checkpoint and executes `first` before its epochs; or that saves nothing."""
    save = "state.with_suffix('.new').write_text(json.dumps(done)); os.replace(state.with_suffix('.new'), state)"
    return f"""
    import json, os, pathlib, time
    from aimlhpo import BaseObjective
    from aimlhpo.callbacks import report_or_prune

    class Objective(BaseObjective):
        def train(self, trial, conf):
            state = self.checkpoint_dir(trial) / "state.json"
            done = json.loads(state.read_text()) if state.exists() else []
            {first}
            for epoch in range(len(done), 9):
                done.append([epoch, trial.attempt])
                {save if saves else "pass"}
                report_or_prune(trial, conf["model"]["x"] + 1 / (1 + epoch), epoch)
            return {{"val_loss": conf["model"]["x"], "epochs": json.dumps(done)}}
    """


PROMOTION = {"type": "ASHA", "mode": "promotion", "max_resource": 9}


def project(folder: Path, objective: str | None = None, **keys: Any) -> Project:
    return Project(folder, objective or resuming(), **{"n_trials": 18, "pruner": PROMOTION, "seed": 1, **keys})


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
        done = json.loads(record_of(trial)["metrics"]["epochs"])
        assert done == [[0, 1], [1, 2], [2, 2], *([epoch, 3] for epoch in range(3, 9))]
        assert record_of(trial)["attempts"] == 3
    assert complete


def test_what_is_paused_is_counted_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated = resuming(
        f"gate = pathlib.Path({str(gate)!r})\n            "
        "while trial.number == 8 and not gate.exists(): gate.with_name('closed').touch(); time.sleep(0.05)"
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
    assert f"{after.counts.paused} paused, 1 waiting" in " ".join(screen(after, made.config))
    gate.touch()
    made.run("--reload", "1")
    assert sum(made.states().values()) == 18
    assert set(made.states()) == {"COMPLETE", "PRUNED"}


def test_a_trial_that_leaves_no_checkpoint_is_told_once(tmp_path: Path) -> None:
    shown = project(tmp_path, resuming(saves=False)).run().stdout
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
    odd = resuming(
        "if trial.number == 2: raise RuntimeError('broken')\n            if trial.number == 3: return {'val_loss': 5.0}"
    )
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
    assert record_of(best)["metrics"]["attempt"] == "2"
