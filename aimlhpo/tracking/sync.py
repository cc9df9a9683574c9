"""Reads the storage again and again, and sends every tracking tool what it does not have yet.

Runs in the command `aimlhpo track`, or in the agent's child process, which is this module as a program: `main` serves
the agent at the other end of a pipe. The child has the study's storage and the tools to itself, in its only thread, so
that neither can keep the agent waiting.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.space.constraints import holds
from aimlhpo.storage.locks import locked
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count
from aimlhpo.tracking.run import RunReader, StudyState, Target, version_of
from aimlhpo.tracking.tracker import Delivered, FinishTracking, LogLine, TrackingDone, TrackingReady, make_targets

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two tries while a tool does not answer
_LONGEST_REASON = 200  # characters
_PERIOD = 3.0  # seconds between two readings of the storage
_LAST_REQUESTS = "5"  # seconds that a server has for each answer when the agent is about to end
_NICENESS = 10
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM signals all of a job's processes; the agent alone says when this one ends."""


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


def main(descriptor: int) -> None:
    """Serve the agent at the other end of the pipe until it asks for the end, or is gone.

    What is under way then is still completed: MLflow's directories are damaged when a writer is killed.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with Connection(descriptor) as agent, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        config: Config = agent.recv()
        with locked(config.paths.tracking_lock):  # the child of an agent that was killed may still be about to end
            _serve(agent, config)


def _serve(agent: Connection, config: Config) -> None:
    sync: TrackingSync | None = None
    pause = 0.0
    while not agent.poll(pause):
        pause = _PERIOD
        with _outages_ignored():
            sync = sync or _start_sync(config, agent)
            sync.sync()
    finish: FinishTracking = agent.recv()
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _LAST_REQUESTS
    missing = ["the storage does not answer"]
    with _outages_ignored():
        sync = sync or _start_sync(config, agent)
        missing = sync.finish(finish.ended)
    agent.send(TrackingDone(missing))


@contextmanager
def _outages_ignored() -> Iterator[None]:
    """The agent tells the user of the storage's outages; here the storage is simply read again later."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


def _start_sync(config: Config, agent: Connection) -> TrackingSync:
    study = load_study(config)
    targets = make_targets(config, study)
    for target in targets:
        with suppress(Exception):  # `open` raises it again, and then it is told
            target.load()
    agent.send(TrackingReady())

    def delivered() -> None:
        _lower_priority()
        agent.send(Delivered())

    return TrackingSync(config, study, targets, lambda text: agent.send(LogLine(text)), delivered)


@cache
def _lower_priority() -> None:
    """From the first delivery on; before, loading and a new database would take minutes on a busy machine."""
    os.nice(_NICENESS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
