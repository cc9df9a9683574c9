"""What the agent hands to its clerk, and how often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from aimlhpo.agent.bookkeeper import Bookkeeper
from aimlhpo.agent.clerk import Clerk
from aimlhpo.agent.desk import Desk
from aimlhpo.agent.preparing import Preparing
from aimlhpo.outbox import Outbox


class BusyClerk:
    """A clerk that gets to nothing before it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], None]] = []

    def submit(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.waiting.append(then)


class Books:
    def reap(self) -> list[int]:
        return []


def test_the_dead_are_looked_for_once_at_a_time(tmp_path: Path) -> None:
    clerk = BusyClerk()
    books = cast(Bookkeeper, Books())
    desk = Desk(books, cast(Preparing, None), cast(Clerk, clerk), Outbox(tmp_path), lambda line: None, repeatable=False)
    for _ in range(3):
        desk.reap()
    assert len(clerk.waiting) == 1
    clerk.waiting.pop()([])
    desk.reap()
    assert len(clerk.waiting) == 1
