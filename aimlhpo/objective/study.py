"""What a trial knows of its study: the parts of Optuna's `trial.study` and `trial.storage` that a worker has.

The study's name, directions and metrics are known in the worker; trials and attributes are asked of the agent at each
access. Optuna is imported where something is made of its classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from aimlhpo.objective.messages import StudyInfo

if TYPE_CHECKING:
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState


class ReadOnlyStudy:
    """The study of a trial, as its agent knows it: with the interface of Optuna's, to be read only.

    Attributes:
        study_name: its name.

    What Optuna refuses, such as `best_trial` before a trial is complete, raises what it raises there.
    """

    def __init__(self, info: StudyInfo, read: Callable[[str], Any], storage: TrialStorage) -> None:
        self.study_name = info.study_name
        self._info, self._read, self._storage = info, read, storage

    @property
    def directions(self) -> list[StudyDirection]:
        """One for each metric."""
        from optuna.study import StudyDirection

        return [StudyDirection[direction.upper()] for direction in self._info.directions]

    @property
    def direction(self) -> StudyDirection:
        """That of the only metric. Raises RuntimeError where there are several."""
        if self._is_multi_objective():
            raise RuntimeError("a study with several metrics has several directions: trial.study.directions")
        return self.directions[0]

    @property
    def metric_names(self) -> list[str]:
        """The metrics' names, in the order of the directions."""
        return list(self._info.metric)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, as the agent knows them now."""
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials in one of `states`, or all of them; they are always copies."""
        return [trial for trial in self._read("trials") if states is None or trial.state in states]

    @property
    def best_trial(self) -> FrozenTrial:
        """The best complete trial."""
        found: FrozenTrial = self._read("best_trial")
        return found

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """Those on the Pareto front."""
        return list(self._read("best_trials"))

    @property
    def best_value(self) -> float:
        """The value of the best trial."""
        value = self.best_trial.value
        assert value is not None  # of a complete trial
        return value

    @property
    def best_params(self) -> dict[str, Any]:
        """The parameters of the best trial."""
        return self.best_trial.params

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The study's user attributes."""
        return dict(self._read("user_attrs"))

    def _is_multi_objective(self) -> bool:
        return len(self._info.directions) > 1

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"trial.study.{name} is not there in a worker, where the study can only be read. What ends a study is a "
            "stopping rule under optuna: in the hyperparameter file, or `aimlhpo stop`"
        )


class TrialStorage:
    """What callbacks of other packages do with `trial.storage`: read and set the attributes of the trial itself."""

    def __init__(self, trial_id: int, attributes: Callable[[bool], Mapping[str, Any]], set_one: Callable[..., None]):
        """`attributes` gives the user or the system attributes; `set_one` takes key, value and which of both."""
        self._trial_id, self._attributes, self._set = trial_id, attributes, set_one

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        """Raises KeyError for another trial."""
        return self._copy(trial_id, system=False)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """Raises KeyError for another trial."""
        return self._copy(trial_id, system=True)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Raises KeyError for another trial, TypeError for what JSON cannot hold."""
        self._check(trial_id)
        self._set(key, value, system=False)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Raises KeyError for another trial, TypeError for what JSON cannot hold."""
        self._check(trial_id)
        self._set(key, value, system=True)

    def _copy(self, trial_id: int, *, system: bool) -> dict[str, Any]:
        self._check(trial_id)
        return copy.deepcopy(dict(self._attributes(system)))

    def _check(self, trial_id: int) -> None:
        if trial_id != self._trial_id:
            raise KeyError(f"a worker reaches its own trial alone, whose id is {self._trial_id}; not {trial_id}")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"trial.storage.{name} is not there in a worker, which has no connection to the storage: only the trial's "
            "own attributes can be read and set"
        )
