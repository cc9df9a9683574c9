"""One attempt at one trial: run the objective, and put whatever happens into an Outcome."""

from __future__ import annotations

import copy
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aimlhpo.outcome import OutcomeError, Pruned, extract_values, scalars
from aimlhpo.protocol import COMPLETE, FAIL, PAUSED, PRUNED, Assignment, Outcome
from aimlhpo.trial import Channel, Trial
from aimlhpo.worker.changes import changes

_ERROR_LINES = 30
_OUT_OF_MEMORY = ("OutOfMemoryError", "ResourceExhaustedError", "MemoryError")


def attempt(
    objective: Callable[[Trial], Any], assignment: Assignment, channel: Channel, metrics: Sequence[str]
) -> Outcome:
    """Run the objective on the assignment. Never raises: a failure is an Outcome with its cause."""
    _headline(f"trial {assignment.number}, attempt {assignment.attempt}")
    trial = Trial(assignment, channel)
    before = copy.deepcopy(assignment.conf)
    started = time.monotonic()
    ending = _run(objective, trial, metrics)
    seconds = time.monotonic() - started
    _headline(f"trial {assignment.number}: {ending['state']} after {seconds:.1f} s")
    return Outcome(
        seconds=seconds,
        metrics=scalars(trial.results),
        updates=changes(before, trial.conf),
        unread=trial.unread,
        **ending,
    )


def _run(objective: Callable[[Trial], Any], trial: Trial, metrics: Sequence[str]) -> dict[str, Any]:
    try:
        returned = objective(trial)
        values = extract_values(returned, metrics)
        if not trial.results:
            trial.record_results(returned if isinstance(returned, Mapping) else dict(zip(metrics, values, strict=True)))
        return {"state": COMPLETE, "values": values}
    except OutcomeError as error:
        _print(str(error))
        return {"state": FAIL, "cause": error.cause, "error": str(error)}
    except BaseException as error:  # noqa: BLE001 -- whatever it is, it costs this trial alone
        return {"state": PAUSED if trial.pauses else PRUNED} if is_pruned(error) else _failed(error)


def _failed(error: BaseException) -> dict[str, Any]:
    text = traceback.format_exc()
    _print(text)
    return {"state": FAIL, "cause": cause_of(error), "error": "\n".join(text.splitlines()[-_ERROR_LINES:])}


def cause_of(error: BaseException) -> str:
    """The cause that is stored with a trial whose objective raised `error`."""
    if is_out_of_memory(error):
        return "out of memory"
    message = next(iter(_text(error).splitlines()), "")
    return f"exception: {type(error).__name__}: {message}".rstrip(": ")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a framework, or Python, ran out of memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names.intersection(_OUT_OF_MEMORY)) or "CUDA out of memory" in _text(error)


def is_pruned(error: BaseException) -> bool:
    """Whether the objective gave the trial up; by name: Optuna is loaded here only where user code loads it."""
    return isinstance(error, Pruned) or any(
        kind.__name__ == "TrialPruned" and kind.__module__.startswith("optuna") for kind in type(error).__mro__
    )


def _headline(text: str) -> None:
    """Mark the trial's lines in the worker's log, in order with what the objective prints."""
    _print(f"==== {time.strftime('%Y-%m-%d %H:%M:%S')} {text} (pid {os.getpid()})")


def _print(text: str) -> None:
    """Write to the log where that can be done: an objective may have closed it, the disk may be full."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
        print(text, flush=True)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- the user's own __str__
        return ""
