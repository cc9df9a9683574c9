"""The worker's standard output and error: what one trial closes, the next one finds open again.
The objective of a worker, made once.
What an objective changed in its configuration in place, as colon paths and values.
One attempt at one trial: run the objective, and put whatever happens into an Outcome.
A worker's life: load the objective once, then run the trials that the agent sends.
"""

from __future__ import annotations

import copy
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TextIO

from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.base import BaseObjective, load_objective, make_objective
from aimlhpo.objective.messages import (
    COMPLETE,
    FAIL,
    PAUSED,
    PRUNED,
    Assignment,
    Finished,
    LoadFailed,
    Outcome,
    Ready,
    Setup,
    Stop,
)
from aimlhpo.objective.outcome import OutcomeError, Pruned, extract_values, scalars
from aimlhpo.objective.trial import Channel, Trial, plain
from aimlhpo.worker.channel import PipeChannel
from aimlhpo.worker.command import CommandObjective
from aimlhpo.worker.provenance import provenance
from aimlhpo.worker.ranks import RankGroup


class Output:
    """Remembers where the log is; made before any user code runs."""

    def __init__(self) -> None:
        self._log = os.dup(1)  # standard output and error are one file

    def restore(self) -> None:
        """Open again what was closed; what user code put in place of it stays."""
        for number in (1, 2):
            if not _is_open(number):
                os.dup2(self._log, number)
        sys.stdout = _usable(sys.stdout, 1)
        sys.stderr = _usable(sys.stderr, 2)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _usable(stream: TextIO | None, number: int) -> TextIO:
    if stream is None or getattr(stream, "closed", False):
        return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    return stream


def load(setup: Setup, device: str, imported: type[BaseObjective] | None = None) -> BaseObjective | LoadFailed:
    """The objective, made of the class that is `imported` already where one is; or why there is none."""
    study = setup.study
    metric = study.metric[0] if len(study.metric) == 1 else list(study.metric)
    try:
        if setup.command is not None:
            return CommandObjective(setup.command, study, dict(setup.conf), metric)
        kind = imported or load_objective(setup.objective)
        return make_objective(kind, study=study, config=dict(setup.conf), metric=metric, device=device)
    except ObjectiveError as error:
        return LoadFailed(str(error), "")
    except BaseException as error:  # noqa: BLE001 -- told to the agent, which stops the study
        return LoadFailed(f"{setup.objective}: making Objective raised {error!r}", traceback.format_exc())


_OURS = "optuna"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Every path whose value was added or changed to plain data; the study's own part is left out."""
    found: dict[str, Any] = {}
    for path, value in _walk(before, after, ""):
        if not path.startswith(_OURS + ":"):
            with suppress(TypeError, ValueError, RecursionError):
                found[path] = plain(value)
    return found


def _walk(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in after.items():
            inner = f"{path}:{key}" if path else str(key)
            yield from _walk(before[key], value, inner) if key in before else [(inner, value)]
    elif not _equal(before, after):
        yield path, after


def _equal(before: Any, after: Any) -> bool:
    """Compare without tripping over values whose == gives no plain truth value, such as arrays."""
    try:
        return type(before) is type(after) and bool(before == after)
    except (TypeError, ValueError, RuntimeError):
        return False


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


def run_worker(connection: Connection, imported: type[BaseObjective] | None = None) -> None:
    """Serve the agent at the other end until it says stop; `imported` is the objective's class where it is loaded."""
    output = Output()
    setup: Setup = connection.recv()
    channel = PipeChannel(connection)
    team = RankGroup(setup, channel)
    objective = load(setup, setup.device, imported)
    if isinstance(objective, LoadFailed):
        channel.send(objective)
        return
    channel.send(Ready(provenance(setup.command.source if setup.command else setup.objective)))
    channel.start()
    worker = os.getpid()
    while not isinstance(assignment := channel.assignments.get(), Stop):
        output.restore()
        team.begin(assignment)
        outcome = attempt(objective, assignment, team.channel, setup.study.metric)
        if os.getpid() != worker:
            os._exit(0)  # the objective forked, and its child came back from it: the worker's own result counts
        team.settle()
        channel.send(Finished(assignment.number, outcome))
