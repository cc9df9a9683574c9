"""`python -m aimlhpo.worker.rank_process FD PARENT RANK`: one of the other ranks of a trial on several devices."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from aimlhpo.objective.base import BaseObjective
from aimlhpo.objective.messages import LoadFailed, Setup, SuggestRequest
from aimlhpo.objective.trial import Trial
from aimlhpo.processes import die_with_parent
from aimlhpo.worker.ranks import Begin, RankAnswer, RankEnded, Shared, rank_environment
from aimlhpo.worker.worker import cause_of, is_pruned, load


class _RankZeroIsDone(BaseException):
    """Rank 0 has ended the trial while this rank still asked."""


class FollowingChannel:
    """Gives what rank 0 was given, in the same order; sends nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: object) -> None:
        """Rank 0 alone reports."""

    def request(self, message: SuggestRequest) -> Any:
        return self._next()

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._next())

    def _next(self) -> Any:
        answer: Shared | RankAnswer = self._connection.recv()
        if isinstance(answer, RankAnswer):
            raise _RankZeroIsDone
        if answer.error is not None:
            raise answer.error
        return answer.value


def run_rank(connection: Connection, rank: int) -> None:
    """Follow rank 0 until it ends."""
    setup: Setup = connection.recv()
    objective = load(setup, f"cuda:{rank}" if setup.device.startswith("cuda") else setup.device)
    while True:
        begin = connection.recv()
        if not isinstance(begin, Begin):  # answers that this rank did not ask for
            continue
        os.environ.update(rank_environment(rank, setup.ranks, begin.port))
        connection.send(_follow(objective, Trial(begin.assignment, FollowingChannel(connection))))


def _follow(objective: BaseObjective | LoadFailed, trial: Trial) -> RankEnded:
    if isinstance(objective, LoadFailed):
        return RankEnded(objective.message, objective.detail)
    try:
        objective.train(trial, trial.conf)
    except _RankZeroIsDone:
        return RankEnded()
    except BaseException as error:  # noqa: BLE001 -- told to rank 0, which fails the trial
        return RankEnded() if is_pruned(error) else RankEnded(cause_of(error), traceback.format_exc())
    return RankEnded()


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    run_rank(Connection(int(sys.argv[1])), int(sys.argv[3]))
