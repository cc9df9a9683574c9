"""Python's interpreter, set for a process whose main thread must answer at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = 0.0005  # seconds; Python's own 0.005 is waited several times for each trial that ends


@contextmanager
def prompt() -> Iterator[None]:
    """Let no other thread keep the main one waiting for long."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)


def keep_all() -> None:
    """Spare the garbage collector what is there now, a loaded study: looking through it stops all threads."""
    gc.freeze()
