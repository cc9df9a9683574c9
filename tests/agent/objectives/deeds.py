"""Trials that do what the model configuration says: `deeds` maps a trial's number to the name of a function here.

Every other trial does what `always` names, if anything. A function that returns None lets its trial end as usual.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    """`cannot_be_made` in the model configuration makes its construction fail."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.config.get("cannot_be_made"):
            raise ZeroDivisionError

    def train(self, trial: Any, conf: dict[str, Any]) -> Any:
        deed = conf.get("deeds", {}).get(trial.number, conf.get("always"))
        if deed == "return None":
            return None
        returned = DEEDS[deed]() if deed else None
        print("still here")
        return returned or {"val_loss": 1.0}


def raise_value_error() -> NoReturn:
    raise ValueError("no such layer")


def raise_memory_error() -> NoReturn:
    raise MemoryError


def close_output() -> None:
    sys.stdout.close()
    os.close(2)


DEEDS: dict[str, Callable[[], Any]] = {
    "raise ValueError": raise_value_error,
    "exit": lambda: sys.exit(0),
    "exit at once": lambda: os._exit(7),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "raise MemoryError": raise_memory_error,
    "hang": lambda: time.sleep(600),
    "close its output": close_output,
    "return NaN": lambda: {"val_loss": float("nan")},
    "return infinity": lambda: {"val_loss": float("inf")},
    "return a text": lambda: {"val_loss": "0.5"},
    "return True": lambda: {"val_loss": True},
    "return a complex number": lambda: {"val_loss": 1j},
    "return a list": lambda: {"val_loss": [1.0]},
    "return another metric": lambda: {"loss": 1.0},
    "return a NumPy number": lambda: {"val_loss": numpy.float32(0.5)},
}
