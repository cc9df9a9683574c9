"""The child process of an agent that tells tracking tools of the trials."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from aimlhpo.locks import locked
from aimlhpo.patience import is_outage
from aimlhpo.storage import load_study
from aimlhpo.tracking.follower import Follower
from aimlhpo.tracking.messages import Done, Finish, Line, Moved, Ready
from aimlhpo.tracking.targets import make_targets

if TYPE_CHECKING:
    from aimlhpo.config import Config

_PERIOD = 3.0  # seconds between two looks at the storage
_LAST_REQUESTS = "5"  # seconds that a server has for each answer when the agent is about to end
_NICENESS = 10
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM signals all of a job's processes; the agent alone says when this one ends."""


def main(descriptor: int) -> None:
    """Serve the agent at the other end of the pipe until it wants an end, or is gone.

    Then what is under way is ended in good order: MLflow's directories do not bear a writer that is killed.
    """
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with Connection(descriptor) as agent, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        config: Config = agent.recv()
        with locked(config.paths.tracking_lock):  # the child of an agent that was killed may still be about to end
            _serve(agent, config)


def _serve(agent: Connection, config: Config) -> None:
    follower: Follower | None = None
    pause = 0.0
    while not agent.poll(pause):
        pause = _PERIOD
        with _outages_ignored():
            follower = follower or _follower(config, agent)
            follower.sync()
    finish: Finish = agent.recv()
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _LAST_REQUESTS
    lacks = ["the storage does not answer"]
    with _outages_ignored():
        follower = follower or _follower(config, agent)
        lacks = follower.finish(finish.ended)
    agent.send(Done(lacks))


@contextmanager
def _outages_ignored() -> Iterator[None]:
    """The agent tells of the storage's outages; here the next look comes as always."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


def _follower(config: Config, agent: Connection) -> Follower:
    study = load_study(config)
    targets = make_targets(config, study)
    for target in targets:
        with suppress(Exception):  # `open` tells of it
            target.load()
    agent.send(Ready())

    def moved() -> None:
        _step_back()
        agent.send(Moved())

    return Follower(config, study, targets, lambda text: agent.send(Line(text)), moved)


@cache
def _step_back() -> None:
    """Low priority from now on: at that, loading and a new database would take minutes on a busy machine."""
    os.nice(_NICENESS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
