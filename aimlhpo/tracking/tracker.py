"""The tracking tools that there are, and the agent's side of tracking: starts the child that does it, passes on what it
says, and bounds its end.

Runs in the agent's main thread. The messages that go over the pipe to the child and back are here, too.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import Problem
from aimlhpo.ledger.leases import Election
from aimlhpo.processes import module_command
from aimlhpo.search.building import strategies
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.tracking.mlflow import MlflowTarget
from aimlhpo.tracking.run import RunReader, StudyEntry, Target
from aimlhpo.tracking.tensorboard import TensorboardTarget

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

TRACKERS: dict[str, type[Target]] = {
    "mlflow": MlflowTarget,
    "tensorboard": TensorboardTarget,
}
"""Each tool's class, by its section under `log`."""
_RESTART = 60.0  # seconds until a child that has died is followed by another
_HANDOVER = 5.0  # seconds that an agent waits for one that is about to end
_END, _HURRIED_END = 60.0, 5.0  # seconds that the child has for what is left; the second where a signal has come
_QUIET = 2.0  # seconds of waiting that the user is not told of
_REMOTE_SILENCE, _LOCAL_SILENCE = 12.0, 60.0  # seconds without a delivery, to a server; to files, and until ready


def asked_trackers(config: Config) -> dict[str, Any]:
    """The sections under `log` that ask for a tool, by name."""
    return {name: section for name in TRACKERS if (section := getattr(config.log, name, None)) is not None}


def tracking_problems(config: Config) -> Iterator[Problem]:
    """Tools that are asked for and not installed, and wrong sections. Whether a server answers is no condition."""
    asked = asked_trackers(config)
    for name in asked:
        package = TRACKERS[name].package
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a directory that only has the package's name has no origin
            yield Problem(f"log: {name}", f"{package} is not installed", f"pip install 'aimlhpo[{package}]'")
    for name, section in asked.items():
        yield from TRACKERS[name].problems(section)


def make_targets(config: Config, study: optuna.Study) -> list[Target]:
    """A target for each tool that is asked for; nothing is opened or imported yet."""
    section, chosen = config.optuna, strategies(config, study)
    signature = study_attributes(study)[STUDY_ATTR]
    parameters = {
        "sampler": chosen.sampler.type,
        "pruner": chosen.pruner.type,
        "n_trials": section.n_trials,
        "seed": signature["seed"],
        "metric": section.metric,
        "direction": section.direction,
    }
    program = section.objective or section.command or ""
    tags = {"study": section.study_name, "save_path": section.save_path, "mlflow.source.name": program}
    entry = StudyEntry(signature["id"], section.study_name, parameters, tags)
    reported = RunReader(config).reported
    return [TRACKERS[name].make(asked, entry, reported) for name, asked in asked_trackers(config).items()]


@dataclass(frozen=True)
class FinishTracking:
    """To the child: send what is left, answer TrackingDone and end. `ended` is as in StudyState."""

    ended: str


@dataclass(frozen=True)
class LogLine:
    """To the agent: a line for the user."""

    text: str


@dataclass(frozen=True)
class TrackingReady:
    """To the agent: everything is loaded, and no other process tells the tools; what takes time now are the tools."""


@dataclass(frozen=True)
class Delivered:
    """To the agent: something has arrived at a tool."""


@dataclass(frozen=True)
class TrackingDone:
    """To the agent: what the tools still lack, a line for each."""

    missing: list[str]


class Tracker:
    """Tells tracking tools of a study's trials, where the configuration asks for it and this agent is elected.

    No call waits for a tool but `finish`, which is bounded.
    """

    def __init__(self, config: Config, agent: str, log: Callable[[str], None]) -> None:
        self._config, self._log = config, log
        self._asked = asked_trackers(config)
        self._election = Election(config.paths.state / "tracker.lock")
        self._output = config.paths.logs / f"tracker-{agent}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_ready = False
        self._start_at = 0.0

    def __enter__(self) -> Tracker:
        self._election.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end_child()
        self._election.__exit__(kind, error, trace)

    def poll(self) -> None:
        """Start a child where one is needed, and pass on what it has said. Called again and again."""
        if self._connection is not None:
            try:
                while self._connection.poll():
                    self._receive(self._connection.recv())
            except (EOFError, OSError):
                self._restart_later(f"it has died, and {self._output} says why")
        elif self._asked and time.monotonic() >= self._start_at and self._election.won():
            self._election.begin()
            self._start()

    def finish(self, cause: str | None) -> None:
        """Have what is left sent, some seconds long at most; `cause` is why the agent stops before the study's end.

        The elected agent does so; another one takes over where the elected one has ended or is about to.
        """
        if not self._asked:
            return
        deadline = time.monotonic() + _HANDOVER
        while not self._election.won():
            if not self._election.is_vacant_soon() or time.monotonic() >= deadline:
                return
            time.sleep(0.1)
        self.poll()
        if self._connection is None:  # it has died: one more does the rest
            self._start()
        if self._connection is not None:
            self._election.resign()
            missing = self._await_done(self._connection, cause)
            for line in missing:
                self._log(f"tracking is not complete: {line}")
            if missing:
                self._log(f"    aimlhpo track {self._config.paths.save_path}  # sends the rest")

    def _await_done(self, connection: Connection, cause: str | None) -> list[str]:
        """Ask the child for the end. Returns what the tools lack then."""
        remote = any(TRACKERS[name].is_remote(section) for name, section in self._asked.items())
        deadline = time.monotonic() + (_END if cause is None else _HURRIED_END)
        try:
            connection.send(FinishTracking("finished" if cause is None else "stopped"))
            if not connection.poll(_QUIET):
                self._log("sending the last trials to the tracking tools")
            while True:
                silence = _REMOTE_SILENCE if remote and self._is_ready else _LOCAL_SILENCE
                if not connection.poll(max(0.0, min(deadline - time.monotonic(), silence))):
                    return ["there was no more time"]
                message = connection.recv()
                if isinstance(message, TrackingDone):
                    return message.missing
                if isinstance(message, TrackingReady) and cause is None:
                    deadline = time.monotonic() + _END
                self._receive(message)
        except (EOFError, OSError):
            return [f"the child process that does it has died ({self._output})"]

    def _receive(self, message: object) -> None:
        self._is_ready = self._is_ready or isinstance(message, TrackingReady)
        if isinstance(message, LogLine):
            self._log(message.text)

    def _start(self) -> None:
        self._is_ready = False
        self._connection, theirs = Pipe()
        try:
            with theirs, open(self._output, "ab") as output:
                self._child = subprocess.Popen(
                    module_command("aimlhpo.tracking.sync", theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._connection.send(self._config)
        except OSError as error:
            self._restart_later(str(error))

    def _restart_later(self, reason: str) -> None:
        """Do without a child for a while."""
        self._end_child()
        self._start_at = time.monotonic() + _RESTART
        self._log(f"the process that tells tracking tools of the trials is started again later: {reason}")

    def _end_child(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._child = self._connection = None
