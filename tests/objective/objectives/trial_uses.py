"""Trials that use `trial` as objectives do, each in the way that `uses` in the model configuration gives its number."""

import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import optuna.terminator

from aimlhpo import BaseObjective

FOLDER = Path(__file__).parent
LATE = FOLDER / "late"
"""Where a process that outlives its trial writes what it is told."""


class Objective(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        return USES[conf["uses"][trial.number]](trial) or {"val_loss": 1.0}


def in_a_fork(work: Callable[[Any], Any], trial: Any) -> Any:
    """What `work` returns in a child process, which may be handed over; RuntimeError where it has raised."""
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        try:
            queue.put((work(trial), None))
        except Exception as error:  # noqa: BLE001 -- raised in the parent
            queue.put((None, f"{type(error).__name__}: {error}"))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert not process.is_alive(), "the child hangs"
    value, error = queue.get()
    if error is not None:
        raise RuntimeError(error)
    return value


def use_everything(trial: Any) -> float:
    value: float = trial.suggest_float("y", 0, 1)
    assert trial.suggest_float("y", 0, 1) == value == trial.params["y"]
    trial.report(value, 7)
    trial.set_user_attr("process", os.getpid())
    return value


def suggest_in_a_child(trial: Any) -> dict[str, Any]:
    value = in_a_fork(use_everything, trial)
    assert trial.params["y"] == value
    assert trial.user_attrs["process"] != os.getpid()
    assert trial.intermediate_values == {7: value}
    return {"val_loss": value}


def suggest_in_a_grandchild(trial: Any) -> dict[str, Any]:
    return {"val_loss": in_a_fork(lambda trial: in_a_fork(use_everything, trial), trial)}


def suggest_in_several_children(trial: Any) -> dict[str, Any]:
    """Each one asks for another parameter, all of them at once; this process asks, too."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child(name: str) -> None:
        queue.put((name, [trial.suggest_float(f"{name}{i}", 0, 1) for i in range(5)]))

    children = [context.Process(target=child, args=(name,)) for name in "abc"]
    for process in children:
        process.start()
    mine = [trial.suggest_float(f"d{i}", 0, 1) for i in range(5)]
    found = dict([queue.get() for _ in children], d=mine)
    for process in children:
        process.join()
    assert {f"{name}{i}": v for name, values in found.items() for i, v in enumerate(values)} == {
        name: value for name, value in trial.params.items() if name[0] in "abcd"
    }
    return {"val_loss": found["a"][0]}


def suggest_in_a_spawned_child(trial: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        value = pool.apply(operator.methodcaller("suggest_float", "y", 0, 1), (trial,))
        pool.apply(operator.methodcaller("set_user_attr", "key", [1]), (trial,))
    assert trial.user_attrs == {"key": [1]}
    assert trial.params["y"] == value
    return {"val_loss": value}


def report_from_a_pickle(trial: Any) -> dict[str, Any]:
    (FOLDER / "trial.pickle").write_bytes(pickle.dumps({"callback": trial}))
    script = (
        "import pickle, sys; trial = pickle.load(open(sys.argv[1], 'rb'))['callback']; trial.report(0.5, 3); "
        "print(trial.number, trial.params['x'], trial.should_prune(), trial.study.study_name)"
    )
    command = [sys.executable, "-c", script, str(FOLDER / "trial.pickle")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.split() == [str(trial.number), str(trial.params["x"]), "False", "s"]
    assert trial.intermediate_values == {3: 0.5}
    return {"val_loss": 0.5}


def train(trial: Any) -> str:
    for epoch in range(20):
        trial.report(float(epoch), epoch)
        if trial.should_prune():
            return f"pruned at {epoch}"
    return "trained"


def prune_in_a_child(trial: Any) -> None:
    told = in_a_fork(train, trial)
    trial.set_user_attr("told", told)
    raise optuna.TrialPruned


def fail_in_a_child(trial: Any) -> None:
    in_a_fork(operator.methodcaller("suggest_float", "y", 2, 1), trial)


def leave_a_child_behind(trial: Any) -> dict[str, Any]:
    def child() -> None:
        while not LATE.exists():
            time.sleep(0.01)
        said = []
        for call in (lambda: trial.suggest_float("y", 0, 1), lambda: trial.report(99.0, 1), trial.should_prune):
            try:
                said.append(f"got {call()}")
            except RuntimeError as error:
                said.append(str(error))
        LATE.with_suffix(".new").write_text("\n".join([*said, str(trial.number)]))
        LATE.with_suffix(".new").rename(LATE.with_suffix(".said"))

    multiprocessing.get_context("fork").Process(target=child, daemon=True).start()
    return {"val_loss": trial.suggest_float("y", 0, 1)}


def go_on_beside_that_child(trial: Any) -> dict[str, Any]:
    LATE.touch()
    while not LATE.with_suffix(".said").exists():
        time.sleep(0.01)
    return {"val_loss": trial.suggest_float("y", 0, 1)}


def read_the_study(trial: Any) -> dict[str, Any]:
    """All that plain Optuna's trials have."""
    study = trial.study
    assert isinstance(trial, optuna.trial.BaseTrial)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert (study.study_name, study.metric_names) == ("s", ["val_loss"])
    before = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert study.best_value == min(t.value for t in before)
    assert study.best_trial.params == study.best_params
    assert trial.number in [t.number for t in study.trials]
    assert study.user_attrs == {}
    assert trial.storage.get_trial_user_attrs(trial._trial_id) == {}
    assert any(key.startswith("aimlhpo") for key in trial.system_attrs)
    trial.set_constraint("memory", 2.0)
    optuna.terminator.report_cross_validation_scores(trial, [0.1, 0.2])
    assert trial.constraints == {"memory": 2.0}
    value = trial.suggest_int("layers", 1, 8, log=True)
    assert trial.distributions == {
        "x": optuna.distributions.FloatDistribution(0.0, 1.0),
        "layers": optuna.distributions.IntDistribution(1, 8, log=True),
    }
    assert optuna.trial.create_trial(params=dict(trial.params), distributions=trial.distributions, value=value)
    return {"val_loss": -1.0}


USES: dict[str, Callable[[Any], Any]] = {
    name.replace("_", " "): use for name, use in list(globals().items()) if callable(use)
}
