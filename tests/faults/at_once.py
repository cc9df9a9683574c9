"""Many processes that begin the same work at the same instant."""

from __future__ import annotations

import os
from collections.abc import Callable


def run(times: int, prepare: Callable[[], object], work: Callable[[], object]) -> int:
    """Fork so often, let each child prepare, and then let all of them work at once; how many ended badly."""
    ready, go = os.pipe(), os.pipe()
    children = [_fork(prepare, work, ready[1], go[0]) for _ in range(times)]
    for _ in children:
        os.read(ready[0], 1)
    os.write(go[1], b"." * times)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(prepare: Callable[[], object], work: Callable[[], object], ready: int, go: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        try:
            prepare()
        finally:
            os.write(ready, b".")
        os.read(go, 1)
        work()
        status = 0
    finally:
        os._exit(status)
