"""What the ranks of a trial ask: rank 0 asks the agent, and each answer goes to the other ranks, too.

Where all ranks ask the same they get the same, though not at the same time. A rank need not ask for what rank 0 was
told: each answer says what it answers, and waits in the rank until that is asked there.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol

from aimlhpo.objective.messages import Answer, Assignment, ReadRequest, SuggestRequest
from aimlhpo.objective.trial import Channel
from aimlhpo.worker.channel import start_receiving

_NEXT_DECISION = "decision"  # of a rank that does not report, and so knows of no step


@dataclass(frozen=True)
class Begin:
    """From rank 0: run this trial; the ranks meet at `port`."""

    assignment: Assignment
    port: int


@dataclass(frozen=True)
class EndTrial:
    """From rank 0: it has ended the trial, and answers no more; `complete` says whether with a result."""

    complete: bool = False


@dataclass(frozen=True)
class RankEnded:
    """To rank 0: this rank has ended the trial; `cause` says what went wrong, if anything did."""

    cause: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class NodesJoined:
    """To rank 0: the processes of all ranks on other nodes have been started."""


@dataclass(frozen=True)
class SharedAnswer:
    """From rank 0: what it was told when it asked one of `questions`, which are different names for the same one."""

    questions: tuple[Hashable, ...]
    answer: Answer


class Rank(Protocol):
    """Another rank, as rank 0 sees it."""

    def send(self, message: object) -> None:
        """Send it a message."""


class RankZeroIsDone(BaseException):
    """Rank 0 has ended the trial while this rank still asked."""


class SharingChannel:
    """Rank 0's channel."""

    def __init__(self, inner: Channel, others: Sequence[Rank]) -> None:
        self._inner, self._others = inner, others

    def send(self, message: object) -> None:
        self._inner.send(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        try:
            value = self._inner.request(message)
        except Exception as error:
            self._share(Answer(error=error), _question(message))
            raise
        self._share(Answer(value), _question(message))
        return value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        prune = self._inner.decision(number, step, wait=wait)
        self._share(Answer(prune), step, _NEXT_DECISION)
        return prune

    def _share(self, answer: Answer, *questions: Hashable) -> None:
        for other in self._others:
            other.send(SharedAnswer(questions, answer))


class FollowingChannel:
    """Another rank's channel: gives what rank 0 was told, and sends nothing.

    A thread of its own receives, so that rank 0 never waits for this rank; it ends the process when rank 0 is gone.
    """

    def __init__(self, connection: Connection) -> None:
        self._trials: SimpleQueue[Begin] = SimpleQueue()
        self._change = threading.Condition()  # guards the next two
        self._answers: dict[Hashable, list[Answer]] = defaultdict(list)
        self._done = self._complete = self._pruned = False
        start_receiving(connection, self._take)

    def next_trial(self) -> Begin:
        """Wait for rank 0 to begin one."""
        return self._trials.get()

    @property
    def is_given_up(self) -> bool:
        """Whether rank 0 has decided to prune the trial, or has ended it without a result."""
        with self._change:
            return self._pruned or (self._done and not self._complete)

    @property
    def is_complete(self) -> bool:
        """Whether rank 0 has ended the trial with a result."""
        with self._change:
            return self._complete

    def send(self, message: object) -> None:
        """Rank 0 alone reports."""

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        return self._next(_question(message))

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._next(_NEXT_DECISION if step is None else step))

    def _next(self, question: Hashable) -> Any:
        with self._change:
            self._change.wait_for(lambda: self._answers[question] or self._done)
            if not self._answers[question]:
                raise RankZeroIsDone
            return self._answers[question].pop(0).get()

    def _take(self, message: object) -> None:
        with self._change:
            match message:
                case Begin():
                    self._answers.clear()
                    self._done = self._complete = self._pruned = False
                    self._trials.put(message)
                case SharedAnswer():
                    for question in message.questions:
                        self._answers[question].append(message.answer)
                    if _NEXT_DECISION in message.questions:
                        self._pruned = self._pruned or message.answer.value is True
                case EndTrial():
                    self._done, self._complete = True, message.complete
            self._change.notify_all()


def _question(message: SuggestRequest | ReadRequest) -> Hashable:
    return message.arguments["name"] if isinstance(message, SuggestRequest) else ("read", message.what)
