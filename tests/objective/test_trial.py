"""The trial has the interface of Optuna's."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import datetime
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from sklearn.base import BaseEstimator, clone

from aimlhpo.objective.messages import Assignment, ReadRequest, Report, SetAttribute, StudyInfo, SuggestRequest
from aimlhpo.objective.trial import Trial
from aimlhpo.space.search_space import SearchSpace
from tests.files import Files

DECLARED = """
    parameters:
      num_dense: {type: int, settings: {low: 0, high: 10}}
      other_dense: {type: int, settings: {low: 0, high: 10, name: dense}}
      rate: {type: loguniform, settings: {low: 1.0e-4, high: 1.0}}
      first: {type: int, settings: {name: second, low: 0, high: 10}}
      second: {type: int, settings: {name: first, low: 0, high: 10}}
      kind: {type: categorical, settings: {name: of, choices: [[1, 2], [3]]}}
"""
VALUES = {"num_dense": 3, "dense": 4, "rate": 0.5, "second": 8, "first": 9, "of": [1, 2]}


class Sent:
    """A channel that keeps what is sent, and answers every question with the same value."""

    def __init__(self, answer: Any = None) -> None:
        self.messages: list[object] = []
        self._answer = answer

    def send(self, message: object) -> None:
        self.messages.append(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        self.messages.append(message)
        return self._answer

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return False


@pytest.fixture
def channel() -> Sent:
    return Sent(7.0)


@pytest.fixture
def trial(channel: Sent, files: Files) -> Trial:
    config = files.write(DECLARED).load()
    space: SearchSpace = config.space
    assignment = Assignment(
        number=2,
        attempt=1,
        conf=config.conf(),
        values=dict(VALUES),
        names={parameter.key: parameter.name for parameter in space.parameters},
        settings={parameter.name: dict(parameter.settings) for parameter in space.parameters},
        plain=[],
        seed=0,
        checkpoint_dir="",
        distributions={n: optuna.distributions.distribution_to_json(d) for n, d in space.distributions.items()},
        trial_id=12,
    )
    return Trial(assignment, channel, StudyInfo("s", ["maximize", "minimize"], ["accuracy", "loss"]))


def test_it_has_all_that_optunas_trials_have(trial: Trial) -> None:
    assert isinstance(trial, optuna.trial.BaseTrial)
    assert isinstance(trial, optuna.Trial)
    plain = optuna.create_study().ask()
    public = {name for name in (*dir(optuna.Trial), *vars(plain)) if not name.startswith("_")}
    assert public - {"relative_search_space"} <= {*dir(type(trial)), *vars(trial)}
    assert trial.relative_params == VALUES
    assert isinstance(trial.datetime_start, datetime)
    assert trial._trial_id == 12
    assert set(trial.distributions) == set(VALUES)
    assert trial.distributions["rate"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)


def test_its_study_has_optunas_directions(trial: Trial) -> None:
    assert trial.study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    with pytest.raises(RuntimeError, match="directions"):
        _ = trial.study.direction


@pytest.mark.parametrize("name", ["stop", "set_user_attr", "ask"])
def test_what_a_study_does_not_do_here_is_told(trial: Trial, name: str) -> None:
    assert not hasattr(trial.study, name)
    with pytest.raises(AttributeError, match=f"trial.study.{name} is not there in a worker.*aimlhpo stop"):
        getattr(trial.study, name)


def test_another_trials_attributes_are_out_of_reach(trial: Trial, channel: Sent) -> None:
    trial.storage.set_trial_system_attr(12, "run", "a")
    assert channel.messages == [SetAttribute(2, "run", "a", system=True)]
    with pytest.raises(KeyError, match="12"):
        trial.storage.set_trial_system_attr(13, "run", "a")


def test_a_copy_is_the_trial_itself(trial: Trial) -> None:
    class Estimator(BaseEstimator):  # type: ignore[misc]
        def __init__(self, callbacks: Any = None) -> None:
            self.callbacks = callbacks

    assert copy.copy(trial) is copy.deepcopy({"a": [trial]})["a"][0] is trial
    assert clone(Estimator([trial])).callbacks == [trial]


def test_a_pickle_can_be_read_without_the_worker(trial: Trial) -> None:
    script = (
        "import pickle, sys; trial = pickle.load(sys.stdin.buffer); "
        "print(trial.number, trial.params, trial.conf['epochs'], trial.suggest_int('num_dense', 0, 10)); "
        "trial.report(1, 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(trial), capture_output=True)
    assert done.stdout.decode().strip() == f"2 {VALUES} 5 3"
    assert "RuntimeError: trial 2 can only be read in process" in done.stderr.decode()


def test_optuna_is_not_loaded_for_it() -> None:
    code = "import sys, aimlhpo.worker.worker; print({'optuna', 'numpy', 'sqlalchemy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


class TestEntries:
    """`trial.suggest_*(**entry)` with an entry of `conf["optuna"]["parameters"]`."""

    @pytest.mark.parametrize("method", [name for name in dir(optuna.Trial) if name.startswith("suggest_")])
    def test_any_method_gives_the_declared_value_in_its_own_type(self, trial: Trial, method: str) -> None:
        for entry, value in zip(trial.conf["optuna"]["parameters"].values(), VALUES.values(), strict=True):
            given = getattr(trial, method)(**entry)
            assert given == value
            assert type(given) is type(value)

    def test_entry_of_an_earlier_copy_is_found_where_it_has_a_name(self, trial: Trial) -> None:
        entry = copy.deepcopy(trial.conf["optuna"]["parameters"]["other_dense"])
        assert trial.suggest_float(**entry) == 4

    def test_entry_that_might_be_for_several_is_refused(self, trial: Trial) -> None:
        declared = trial.conf["optuna"]["parameters"]
        declared["another"] = copy.deepcopy(declared["num_dense"])
        with pytest.raises(TypeError, match="settings: name"):
            trial.suggest_int(**copy.deepcopy(declared["num_dense"]))


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.array([0.5]), np.array([[0.5]]), torch.tensor([0.5], requires_grad=True)]
)
def test_one_number_in_any_shape_is_reported(trial: Trial, channel: Sent, value: Any) -> None:
    trial.report(value, np.int64(3))
    assert channel.messages == [Report(2, 3, 0.5)]


@pytest.mark.parametrize("value", [np.array([0.5, 0.5]), torch.tensor([0.5, 1.0]), None, "a", [0.5]])
def test_what_is_no_number_is_not_reported(trial: Trial, value: Any) -> None:
    with pytest.raises(TypeError, match="takes a number"):
        trial.report(value, 0)


def test_the_first_value_of_a_constraint_counts(trial: Trial, channel: Sent) -> None:
    trial.set_constraint("memory", np.array([1.5]))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="memory"):
        trial.set_constraint("memory", 2.0)
    assert channel.messages == [SetAttribute(2, "constraints:memory", 1.5, system=True)]
    with pytest.raises(ValueError, match="NaN"):
        trial.set_constraint("time", float("nan"))
