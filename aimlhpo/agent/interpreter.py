"""Python's interpreter, set for a process whose main thread must answer at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = 0.0005  # seconds; Python's own 0.005 is waited several times for each trial that ends


@contextmanager
def prompt() -> Iterator[None]:
    """Let no thread keep the main one waiting for long, nor the collector look through the study that was loaded."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)
