"""Each rule ends a study that two agents work on with two workers each; every command then says which rule it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import ExitCode
from aimlhpo.results.status import read_status
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import STUDY_ATTR, record_of, set_study_attribute, study_attributes
from tests.project import Project

TOGETHER = 4  # the workers of two agents
FALLING, RISING = "1.0 / (1 + trial.number)", "1.0 + trial.number"
GPUS = {"CUDA_VISIBLE_DEVICES": "0,1"}


def objective(value: str, together: int = 1, pause: float = 0.1) -> str:
    """An objective with four reports, that waits until so many trials have begun; `value` is a Python expression."""
    return f"""
        import time
        from pathlib import Path
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                begun = Path(__file__).parent / "begun"
                begun.mkdir(exist_ok=True)
                (begun / str(trial.number)).touch()
                while len(list(begun.iterdir())) < {together}:
                    time.sleep(0.02)
                for step in range(4):
                    trial.report(1.0, step)
                    time.sleep({pause})
                return {{"val_loss": {value}}}
    """


def with_two_agents(project: Project) -> str:
    """Run the study on two agents at once, to its end; what they said."""
    begin_study(project.config)
    project.config.write_snapshot()
    agents = [project.start("-r", "1", "--local", "2") for _ in range(2)]
    try:
        told = [agent.communicate(timeout=120)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    # One that starts after the study's end has nothing to do.
    assert {agent.returncode for agent in agents} <= {ExitCode.DONE, ExitCode.NOTHING_TO_DO}, told
    return "".join(told)


def status_of(project: Project, *options: str) -> str:
    command = [sys.executable, "-m", "aimlhpo", "status", str(project.save_path), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def begun_at(project: Project) -> list[float]:
    claims = [trial.system_attrs.get("aimlhpo:claim") for trial in project.study().trials]
    return [claim["since"] for claim in claims if claim and claim["since"]]


STAGNATION = {
    "type": "Terminator",
    "improvement_evaluator": {"type": "BestValueStagnationEvaluator", "max_stagnation_trials": 3},
    "min_n_trials": 5,
}
RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("timeout", {"timeout": 4}, objective(RISING), "more than 4s have passed since the study was last started"),
    ("timeout", {"timeout": 4, "timeout_scope": "study"}, objective(RISING), "have passed since the study was begun"),
    ("target_value", {"target_value": 0.15}, objective(FALLING, TOGETHER), "<= 0.15 with trial"),
    ("max_gpu_hours", {"max_gpu_hours": 0.0008, "gpu": True}, objective(RISING), "of 0.0008 GPU hours are used"),
    ("terminator", {"terminator": STAGNATION}, objective(RISING, TOGETHER), "Terminator sees no more to gain after"),
    ("patience", {"patience": 5}, objective(RISING, TOGETHER), "trials that finished after trial "),
]


@pytest.mark.parametrize(("rule", "keys", "source", "reason"), RULES, ids=[str(case[1]) for case in RULES])
def test_a_rule_ends_the_study_on_all_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, keys: dict[str, Any], source: str, reason: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS["CUDA_VISIBLE_DEVICES"])
    project = Project(tmp_path, source, n_trials=500, **keys)
    told = with_two_agents(project)
    status = read_status(project.study(), project.config).as_dict()
    ended = status["ended"]
    assert ended["rule"] == rule
    assert reason in ended["reason"]
    assert f"\nstudy s ended by {rule}: {ended['reason']}\n" in told or f"was ended by {rule}" in told
    assert f"ended    by {rule}: {ended['reason']}\n" in status_of(project)
    # Each worker may have begun what was ready for it before its agent heard of the end, and no more.
    assert sum(begun > ended["at"] for begun in begun_at(project)) <= TOGETHER
    assert status["counts"]["running"] == 0
    assert status["counts"]["complete"] < 500


def test_the_number_of_trials_is_a_rule_like_the_others(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=3, target_value=-1)
    assert project.run().stdout.splitlines()[-1] == "study s ended by n_trials: 3 of 3 trials are finished"
    ended = json.loads(status_of(project, "--json"))["ended"]
    assert (ended["rule"], ended["reason"]) == ("n_trials", "3 of 3 trials are finished")


def test_running_trials_are_pruned_where_that_is_said(tmp_path: Path) -> None:
    """One trial reaches the target at once; the other, which would run for minutes, gives up."""
    source = """
        import time, optuna
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                for step in range(3000 * (trial.number % 2)):
                    trial.report(1.0, step)
                    time.sleep(0.1)
                    if trial.should_prune():
                        raise optuna.TrialPruned
                return {"val_loss": trial.number % 2}
    """
    project = Project(tmp_path, source, n_trials=500, target_value=0, at_stop="prune")
    with_two_agents(project)
    states = [trial.state for trial in project.study().trials]
    assert states.count(TrialState.COMPLETE) >= 1
    # What waits was claimed ahead and given back.
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING}


def test_an_ended_study_runs_nothing_until_the_rule_is_changed(tmp_path: Path) -> None:
    project = Project(tmp_path, objective(FALLING, pause=0.0), n_trials=500, target_value=0.3)
    project.run()
    finished = project.states()
    again = project.run("-r", "1", expect=ExitCode.NOTHING_TO_DO)
    assert "study s was ended by target_value: val_loss 0.25 <= 0.3 with trial 3" in again.stdout
    assert "set another target_value" in again.stdout
    assert project.states() == finished
    project.run("-r", "1", "optuna:target_value=0.1")
    assert project.states()["COMPLETE"] > finished["COMPLETE"]
    reached = project.run("-r", "1", "optuna:target_value=0.2", expect=ExitCode.NOTHING_TO_DO)
    assert "val_loss 0.2 <= 0.2 with trial 4" in reached.stdout


def test_a_timeout_of_one_submission_begins_anew_and_that_of_the_study_does_not(tmp_path: Path) -> None:
    project = Project(tmp_path, objective(FALLING, pause=0.0), n_trials=1, timeout=600)
    project.run()
    seem_older(project, by=601)
    project.run("-r", "1", "-t", "2")
    assert project.states() == {"COMPLETE": 2}
    over = project.run("-r", "1", "-t", "3", "optuna:timeout_scope=study", expect=ExitCode.NOTHING_TO_DO)
    assert "since the study was begun" in over.stdout


def seem_older(project: Project, by: float) -> None:
    """Have the study been begun, and started, so many seconds earlier."""
    study = project.study()
    signed = study_attributes(study)[STUDY_ATTR]
    set_study_attribute(study, STUDY_ATTR, signed | {key: signed[key] - by for key in ("begun", "started")})


def test_gpu_hours_count_failed_trials_and_shared_gpus(tmp_path: Path) -> None:
    source = """
        import time
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                time.sleep(0.3)
                raise RuntimeError("no result")
    """
    project = Project(tmp_path, source, n_trials=500, gpu=True, max_gpu_hours=0.0005, max_consecutive_failures=400)
    project.run("--local", "4", env={**os.environ, **GPUS})
    ended = read_status(project.study(), project.config).ended
    assert ended is not None
    assert ended.rule == "max_gpu_hours"
    for record in filter(None, project.records()):  # what was claimed ahead and given back has none
        assert record["gpus"] == 0.5
        assert record["gpu_seconds"] == pytest.approx(record["seconds"] / 2, abs=0.01)
    assert ended.at is not None
    used = sum(gpu_seconds(trial, ended.at) for trial in project.study().trials)
    # No less than the rule says: it does not know yet of a trial that begins while it is asked.
    assert used >= 0.99 * 3600 * float(ended.reason.split()[0])


def gpu_seconds(trial: FrozenTrial, at: float) -> float:
    """What a trial on half a GPU had used at that moment: as recorded, or from its claim on where it still ran."""
    if trial.datetime_complete is not None and trial.datetime_complete.timestamp() <= at:
        return float(record_of(trial)["gpu_seconds"])
    claim = trial.system_attrs.get("aimlhpo:claim") or {}
    return 0.5 * max(0.0, at - (claim.get("since") or at))
