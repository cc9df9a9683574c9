"""Reads the storage again and again, and sends every tracking tool what it does not have yet.

Runs in the agent's child process, or in the command `aimlhpo track`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.space.constraints import holds
from aimlhpo.storage.trials import count
from aimlhpo.tracking.run import RunReader, StudyState, Target, version_of

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two tries while a tool does not answer
_LONGEST_REASON = 200  # characters


class TrackingSync:
    """Keeps tools up to date with one study.

    `say` takes lines for the user, `delivered` is called whenever something has arrived at a tool.
    """

    def __init__(
        self,
        config: Config,
        study: optuna.Study,
        targets: Sequence[Target],
        say: Callable[[str], None],
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        self._config, self._study = config, study
        reader = RunReader(config)
        self._deliveries = [Delivery(target, reader, say, delivered) for target in targets]

    def sync(self) -> None:
        """Send what has changed. Raises what the storage raises, and nothing that a tool does."""
        trials = self._begun_trials()
        state = self._state(trials, None)
        for delivery in self._deliveries:
            delivery.attempt(trials, state)

    def finish(self, ended: str) -> list[str]:
        """The same for the last time, without pauses. `ended` is as in StudyState.

        Returns what the tools still lack, a line for each.
        """
        trials = self._begun_trials()
        state = self._state(trials, None if any(t.state == TrialState.RUNNING for t in trials) else ended)
        for delivery in self._deliveries:
            delivery.attempt(trials, state, at_once=True)
        return [line for delivery in self._deliveries for line in delivery.missing(trials)]

    def _begun_trials(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING or trial.params]

    def _state(self, trials: Sequence[FrozenTrial], ended: str | None) -> StudyState:
        metrics = self._config.optuna.metric
        best = {}
        results = [t.values[0] for t in trials if t.state == TrialState.COMPLETE and holds(t.constraints)]
        if len(metrics) == 1 and results:
            best[metrics[0]] = (max if self._config.optuna.direction[0] == "maximize" else min)(results)
        return StudyState(count(trials).finished, best, ended)


class Delivery:
    """What goes to one tool.

    A failure is logged once; what the tool lacks is sent when it answers again. A run that it does not accept is logged
    and left out, so that it holds up no other.
    """

    def __init__(
        self, target: Target, reader: RunReader, say: Callable[[str], None], delivered: Callable[[], None]
    ) -> None:
        self._target, self._reader, self._say, self._delivered = target, reader, say, delivered
        self._sent: dict[int, Any] = {}
        self._refused: dict[int, str] = {}
        self._is_open = False
        self._reason: str | None = None
        self._pause, self._retry_at = _FIRST_PAUSE, 0.0

    def attempt(self, trials: Sequence[FrozenTrial], state: StudyState, *, at_once: bool = False) -> None:
        """Send what the tool lacks, unless it has failed a moment ago; `at_once`, even then. Raises nothing."""
        if time.monotonic() < self._retry_at and not at_once:
            return
        try:
            if not self._is_open:
                self._target.open()
                self._is_open = True
                self._delivered()
            for trial in trials:
                if self._sent.get(trial.number) != version_of(trial):
                    self._send(trial)
            self._target.conclude(state)
        except Exception as error:  # noqa: BLE001  whatever a tool raises is logged, and training goes on
            self._is_open = False
            if self._reason is None:
                self._say(f"{self._target.name} cannot be told of the trials now, trying again: {_short(error)}")
                self._pause = _FIRST_PAUSE
            self._reason = _short(error)
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            if self._reason is not None:
                self._say(f"{self._target.name} is told of the trials again")
            self._reason = None

    def _send(self, trial: FrozenTrial) -> None:
        """Send one trial, twice if need be, because the tool may have been gone for a moment.

        Raises where it is the tool that fails, and not this run.
        """
        run = self._reader.read(trial)
        self._refused.pop(trial.number, None)
        for attempt in (1, 2):
            try:
                self._target.send(run)
                break
            except Exception as error:
                if isinstance(_root(error), OSError):
                    raise
                self._target.open()
                if attempt == 2:
                    self._say(f"{self._target.name} does not take trial {run.number}: {_short(error)}")
                    self._refused[run.number] = _short(error)
        self._sent[trial.number] = version_of(trial)
        self._delivered()

    def missing(self, trials: Sequence[FrozenTrial]) -> list[str]:
        """What has not arrived, and why, in a line; empty if nothing."""
        missing = [t for t in trials if t.number in self._refused or self._sent.get(t.number) != version_of(t)]
        reason = self._reason or next(iter(self._refused.values()), None)
        return [f"{self._target.name} lacks {len(missing)} of {len(trials)} trials: {reason}"] if reason else []


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
