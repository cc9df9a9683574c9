"""The tracking tools that a configuration asks for.
The child process of an agent that tells tracking tools of the trials.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.storage.locks import locked
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import STUDY_ATTR, load_study
from aimlhpo.tracking.follower import TrackingSync
from aimlhpo.tracking.messages import FinishTracking, LogLine, Moved, TrackingDone, TrackingReady
from aimlhpo.tracking.mlflow import MlflowTarget, StudyEntry
from aimlhpo.tracking.run import Reader, Target
from aimlhpo.tracking.tensorboard import TensorboardTarget

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


def make_targets(config: Config, study: optuna.Study) -> list[Target]:
    """A target for each tool; nothing is opened or imported yet."""
    reported = Reader(config).reported
    mlflow, tensorboard = config.log.mlflow, config.log.tensorboard
    targets: list[Target] = []
    if mlflow is not None:
        targets.append(MlflowTarget(mlflow.uri, mlflow.experiment, _entry(config, study), reported))
    if tensorboard is not None:
        targets.append(TensorboardTarget(Path(tensorboard.directory), reported))
    return targets


def _entry(config: Config, study: optuna.Study) -> StudyEntry:
    section = config.optuna
    parameters = {
        "sampler": section.sampler.type if section.sampler else "TPESampler",
        "pruner": section.pruner.type if section.pruner else "MedianPruner",
        "n_trials": section.n_trials,
        "seed": study.user_attrs[STUDY_ATTR]["seed"],
        "metric": section.metric,
        "direction": section.direction,
    }
    program = section.objective or section.command or ""
    tags = {"study": section.study_name, "save_path": section.save_path, "mlflow.source.name": program}
    return StudyEntry(study.user_attrs[STUDY_ATTR]["id"], section.study_name, parameters, tags)


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
    follower: TrackingSync | None = None
    pause = 0.0
    while not agent.poll(pause):
        pause = _PERIOD
        with _outages_ignored():
            follower = follower or _follower(config, agent)
            follower.sync()
    finish: FinishTracking = agent.recv()
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _LAST_REQUESTS
    lacks = ["the storage does not answer"]
    with _outages_ignored():
        follower = follower or _follower(config, agent)
        lacks = follower.finish(finish.ended)
    agent.send(TrackingDone(lacks))


@contextmanager
def _outages_ignored() -> Iterator[None]:
    """The agent tells of the storage's outages; here the next look comes as always."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


def _follower(config: Config, agent: Connection) -> TrackingSync:
    study = load_study(config)
    targets = make_targets(config, study)
    for target in targets:
        with suppress(Exception):  # `open` tells of it
            target.load()
    agent.send(TrackingReady())

    def moved() -> None:
        _step_back()
        agent.send(Moved())

    return TrackingSync(config, study, targets, lambda text: agent.send(LogLine(text)), moved)


@cache
def _step_back() -> None:
    """Low priority from now on: at that, loading and a new database would take minutes on a busy machine."""
    os.nice(_NICENESS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
