"""The other ranks are told what rank 0 was told, each answer for the question that it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from aimlhpo.objective.messages import Assignment, ReadRequest, SuggestRequest
from aimlhpo.worker.ranks import Begin, EndTrial, FollowingChannel, RankZeroIsDone, SharingChannel
from tests.waiting import wait_until

ASSIGNMENT = Assignment(0, 1, {}, {}, {}, {}, [], 0, "")
OPEN: list[Connection] = []
"""Where the end of a pipe is closed, the channel ends the process."""


class Agent:
    """Prunes from step 3 on, and suggests the length of the name, which may not be `refused`."""

    def send(self, message: object) -> None: ...

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        name = message.arguments["name"] if isinstance(message, SuggestRequest) else message.what
        if name == "refused":
            raise ValueError(name)
        return len(name)

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return step is not None and step >= 3


@pytest.fixture
def ranks() -> Iterator[tuple[SharingChannel, FollowingChannel, Connection]]:
    """The channels of ranks 0 and 1 in a trial, and rank 0's end of the pipe."""
    ours, theirs = Pipe()
    following = FollowingChannel(theirs)
    ours.send(Begin(ASSIGNMENT, 0))
    assert following.next_trial().assignment == ASSIGNMENT
    yield SharingChannel(Agent(), [ours]), following, ours
    OPEN.append(ours)


def suggest(name: str) -> SuggestRequest:
    return SuggestRequest(0, "suggest_float", {"name": name})


def test_rank_0_may_ask_alone_as_often_as_it_likes(ranks: tuple[SharingChannel, FollowingChannel, Connection]) -> None:
    """As callbacks do that ask in rank 0 and broadcast the answer by themselves."""
    zero, one, _ = ranks
    asking = threading.Thread(
        target=lambda: [zero.decision(0, step, wait=False) for step in range(20_000)], daemon=True
    )
    asking.start()
    wait_until(lambda: not asking.is_alive(), "rank 0, which does not wait for rank 1", 60)
    zero.request(suggest("of rank 0 alone"))
    zero.request(suggest("both"))
    assert one.request(suggest("both")) == 4
    assert [one.decision(0, step, wait=False) for step in (2, 3, 19_999)] == [False, True, True]


def test_rank_that_does_not_report_gets_the_decisions_in_their_order(
    ranks: tuple[SharingChannel, FollowingChannel, Connection],
) -> None:
    zero, one, _ = ranks
    for step in range(4):
        zero.decision(0, step, wait=False)
        zero.request(suggest(f"at {step}"))
    assert [one.decision(0, None, wait=False) for _ in range(4)] == [False, False, False, True]


def test_what_the_agent_refuses_is_raised_in_all_ranks(
    ranks: tuple[SharingChannel, FollowingChannel, Connection],
) -> None:
    zero, one, _ = ranks
    for channel in (zero, one):
        with pytest.raises(ValueError, match="refused"):
            channel.request(suggest("refused"))


def test_nothing_is_left_of_an_earlier_trial(ranks: tuple[SharingChannel, FollowingChannel, Connection]) -> None:
    zero, one, pipe = ranks
    zero.request(suggest("before"))
    pipe.send(EndTrial())
    pipe.send(Begin(ASSIGNMENT, 1))
    assert one.next_trial().port == 1
    pipe.send(EndTrial())
    with pytest.raises(RankZeroIsDone):
        one.request(suggest("before"))
