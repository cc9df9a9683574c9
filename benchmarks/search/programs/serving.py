"""What every peer's program has in common: it answers requests, a line of JSON each. Needs the standard library alone.

A program runs with the Python of its peer's own environment. It calls `serve` with a function that makes a searcher of
a `start` request: {"method", "space", "epochs", "trainings", "workers", "seed"}. The space is that of a task
(`benchmarks.search.task`), the choices of a categorical being strings. The searcher has the methods of `PeerSearcher`.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Request = Mapping[str, Any]


class PeerSearcher(Protocol):
    """Epochs are counted from 1 here: how many have been trained."""

    def ask(self) -> tuple[int, dict[str, Any], int] | None:
        """A trial's number, its values, and until which epoch it is to be trained; None: nothing at present."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial has been stopped, or is paused until it is asked for again."""

    def finish(self, number: int, epoch: int, value: float) -> None:
        """The trial has got to the epoch that was asked for."""

    def failed(self, number: int) -> None:
        """The trial has failed."""


def serve(start: Callable[[Request], PeerSearcher]) -> None:
    """Answer requests until there are no more, into the file whose number is the program's argument."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    searcher: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        kind = request.pop("request")
        if kind == "start":
            _seed(request["seed"])
            searcher = start(request)
            answer = None
        else:
            answer = getattr(searcher, kind)(**request)
        answers.write(json.dumps(answer, default=_plain) + "\n")
        answers.flush()


def _seed(seed: int) -> None:
    """Seed the generators that packages share: not each draws all from one of its own."""
    random.seed(seed)
    import numpy as np

    np.random.seed(seed)


def _plain(value: Any) -> Any:
    """A number or string of numpy as one of Python."""
    return value.item()
