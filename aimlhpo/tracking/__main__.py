"""The child process of an agent that tells tracking tools of the trials: `python -m aimlhpo.tracking DESCRIPTOR`.

It has the study's storage and the tools to itself, in its only thread, so that neither can keep the agent waiting.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from aimlhpo.storage.locks import locked
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import load_study
from aimlhpo.tracking.sync import TrackingSync
from aimlhpo.tracking.targets import make_targets
from aimlhpo.tracking.tracker import Delivered, FinishTracking, LogLine, TrackingDone, TrackingReady

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_PERIOD = 3.0  # seconds between two readings of the storage
_LAST_REQUESTS = "5"  # seconds that a server has for each answer when the agent is about to end
_NICENESS = 10
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM signals all of a job's processes; the agent alone says when this one ends."""


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
