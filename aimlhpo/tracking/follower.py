"""Reads the storage again and again, and sends every tracking tool what it does not have yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.space.constraints import holds
from aimlhpo.storage.trials import count
from aimlhpo.tracking.run import Reader, Run, StudyState, Target, mark

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two tries while a tool does not answer
_LONGEST_REASON = 200  # characters


class TrackingSync:
    """Keeps tools up to date with one study.

    `say` takes lines for the user, `moved` is called whenever a run has arrived somewhere.
    """

    def __init__(
        self,
        config: Config,
        study: optuna.Study,
        targets: Sequence[Target],
        say: Callable[[str], None],
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._config, self._study = config, study
        reader = Reader(config)
        self._deliveries = [Delivery(target, reader, say, moved) for target in targets]

    def sync(self) -> None:
        """Send what has changed. Raises what the storage raises, and nothing that a tool does."""
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if _has_begun(trial)]
        state = self._state(trials, None)
        for delivery in self._deliveries:
            delivery.attempt(trials, state)

    def finish(self, ended: str) -> list[str]:
        """The same for the last time, now: what the tools still lack, a line for each. `ended` as in StudyState."""
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if _has_begun(trial)]
        state = self._state(trials, None if any(t.state == TrialState.RUNNING for t in trials) else ended)
        for delivery in self._deliveries:
            delivery.retry_now()
            delivery.attempt(trials, state)
        return [line for delivery in self._deliveries for line in delivery.lacks(trials)]

    def _state(self, trials: Sequence[FrozenTrial], ended: str | None) -> StudyState:
        metrics = self._config.optuna.metric
        results = [trial.values[0] for trial in trials if len(metrics) == 1 and _is_result(trial)]
        choose = max if self._config.optuna.direction[0] == "maximize" else min
        return StudyState(count(trials).finished, {metrics[0]: choose(results)} if results else {}, ended)


class Delivery:
    """What goes to one tool. Its failures are told once, and what it lacks is sent when it answers again."""

    def __init__(self, target: Target, reader: Reader, say: Callable[[str], None], moved: Callable[[], None]) -> None:
        self._target, self._reader, self._say, self._moved = target, reader, say, moved
        self._sent: dict[int, Any] = {}
        self._refused: dict[int, str] = {}
        self._is_open = False
        self._reason: str | None = None
        self._pause, self._retry_at = _FIRST_PAUSE, 0.0

    def retry_now(self) -> None:
        self._retry_at = 0.0

    def attempt(self, trials: Sequence[FrozenTrial], state: StudyState) -> None:
        if time.monotonic() < self._retry_at:
            return
        try:
            self._deliver(trials, state)
        except Exception as error:  # noqa: BLE001  whatever a tool raises: it is told, and training goes on
            self._fail(error)
        else:
            self._recover()

    def _deliver(self, trials: Sequence[FrozenTrial], state: StudyState) -> None:
        if not self._is_open:
            self._target.open()
            self._is_open = True
            self._moved()
        for trial in trials:
            if self._sent.get(trial.number) != mark(trial):
                self._send(trial)
        self._target.conclude(state)

    def _send(self, trial: FrozenTrial) -> None:
        run = self._reader.read(trial)
        self._refused.pop(trial.number, None)
        try:
            self._send_again(run)
        except Exception as error:
            if isinstance(_root(error), OSError):
                raise
            self._target.open()  # raises where it is the tool that fails, and not this run
            self._refuse(run, error)
        self._sent[trial.number] = mark(trial)
        self._moved()

    def _send_again(self, run: Run) -> None:
        """Send, twice if need be: the tool may have been gone for a moment."""
        try:
            self._target.send(run)
        except Exception as error:
            if isinstance(_root(error), OSError):
                raise
            self._target.open()
            self._target.send(run)

    def _refuse(self, run: Run, error: Exception) -> None:
        """The others go on without a run that the tool does not take."""
        self._say(f"{self._target.name} does not take trial {run.number}: {_short(error)}")
        self._refused[run.number] = _short(error)

    def _fail(self, error: Exception) -> None:
        self._is_open = False
        if self._reason is None:
            self._say(f"{self._target.name} cannot be told of the trials now, trying again: {_short(error)}")
            self._pause = _FIRST_PAUSE
        self._reason = _short(error)
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _recover(self) -> None:
        if self._reason is not None:
            self._say(f"{self._target.name} is told of the trials again")
        self._reason = None

    def lacks(self, trials: Sequence[FrozenTrial]) -> list[str]:
        """What has not arrived, and why, in a line; empty if nothing."""
        missing = [t for t in trials if t.number in self._refused or self._sent.get(t.number) != mark(t)]
        reason = self._reason or next(iter(self._refused.values()), None)
        return [f"{self._target.name} lacks {len(missing)} of {len(trials)} trials: {reason}"] if reason else []


def _has_begun(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.WAITING or bool(trial.params)


def _is_result(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and holds(trial.constraints)


def _root(error: BaseException) -> BaseException:
    """What has caused the error in the first place."""
    while isinstance(deeper := error.__cause__ or error.__context__, BaseException):
        error = deeper
    return error


def _short(error: BaseException) -> str:
    """The error in one line; for what the system has refused, the system's own words."""
    root = _root(error)
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    text = " ".join(str(error).split()) or "no reason given"
    line = f"{type(error).__name__}: {text}"
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}..."
