"""A worker's main loop: load the objective once, then run the trials that the agent sends, one after another.

Runs in the main thread of the worker's process, which is user code's too: whatever the objective does, raises, prints
or closes costs the trial at hand and nothing else. Optuna is not imported here; an objective may do so.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.base import (
    BaseObjective,
    OutcomeError,
    Pruned,
    extract_values,
    load_objective,
    make_objective,
    provenance,
    scalars,
)
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
    StudyInfo,
)
from aimlhpo.objective.trial import Channel, Trial, plain
from aimlhpo.worker.channel import PipeChannel, Relay
from aimlhpo.worker.command import CommandObjective, tells_of_memory
from aimlhpo.worker.device_guard import hint_for
from aimlhpo.worker.nodes import start_ranks
from aimlhpo.worker.ranks import (
    FollowingChannel,
    ProcessGroupVariables,
    RankEnded,
    RankGroup,
    RankZeroIsDone,
    rank_environment,
)

_CHUNK = 4096
_ERROR_LINES = 30  # of a traceback that are stored with a failed trial
_OUR_SECTION = "optuna"  # of the model configuration
_OWN, _PEAK = Path("/proc/self"), re.compile(r"VmHWM:\s+(\d+) kB")  # the process's peak, since it was last forgotten


def run_worker(connection: Connection, imported: type[BaseObjective] | None = None) -> None:
    """Serve the agent at the other end until it says stop; `imported` is the objective's class where it is loaded."""
    output = StandardOutput()
    setup: Setup = connection.recv()
    channel = PipeChannel(connection)
    ranks = RankGroup(setup, channel, start_ranks(setup))
    objective = load(setup, setup.device, imported)
    if isinstance(objective, LoadFailed):
        _print(f"{objective.detail}\n{objective.message}".lstrip())  # the agent may go on without this worker
        channel.send(objective)
        return
    if (problem := ranks.wait_until_there()) is not None:
        _print(problem)
        sys.exit(1)
    channel.send(Ready(provenance(setup.command.source if setup.command else setup.objective)))
    channel.start()
    relay, directory, terminations, worker = Relay(), WorkingDirectory(), Terminations(), os.getpid()
    while not isinstance(assignment := channel.assignments.get(), Stop):
        output.restore()
        directory.restore()
        ranks.begin(assignment)
        terminations.watch()
        outcome = attempt(objective, assignment, ranks.channel, setup.study, relay)
        if os.getpid() != worker:
            os._exit(0)  # the objective forked, and its child came back from it: the worker's own result counts
        outcome = ranks.finish(replace(outcome, told_to_end=terminations.came()))
        channel.end_trial()
        channel.send(Finished(assignment.number, outcome))


def run_rank(connection: Connection, rank: int) -> None:
    """Be another rank of the worker at the other end, until that one ends."""
    setup: Setup = connection.recv()
    on_a_node = setup.nodes.ranks_per_node if setup.nodes else setup.ranks
    objective = load(setup, f"cuda:{rank % on_a_node}" if setup.device.startswith("cuda") else setup.device)
    channel, relay = FollowingChannel(connection), Relay()
    directory, variables = WorkingDirectory(), ProcessGroupVariables()
    while True:
        begin = channel.next_trial()
        directory.restore()
        variables.enter(rank_environment(rank, setup.ranks, begin.port, setup.nodes))
        ended = RankEnded()
        if isinstance(objective, LoadFailed):
            ended = RankEnded(objective.message, objective.detail)
        else:
            trial = Trial(begin.assignment, channel, setup.study, relay.name)
            try:
                with relay.serving(trial):
                    if isinstance(objective, CommandObjective):
                        objective.follow(trial, trial.conf, channel)
                    else:
                        objective.train(trial, trial.conf)
            except RankZeroIsDone:
                pass  # it decides how the trial has ended
            except BaseException as error:  # noqa: BLE001 -- told to rank 0, which fails the trial
                if not is_pruned(error):
                    ended = RankEnded(cause_of(error), traceback.format_exc())
                    _print(f"rank {rank}: {ended.error}")
        connection.send(ended)


def load(setup: Setup, device: str, imported: type[BaseObjective] | None = None) -> BaseObjective | LoadFailed:
    """The objective, made of the class that is `imported` already where one is; or why there is none."""
    study = setup.study
    metric = study.metric[0] if len(study.metric) == 1 else list(study.metric)
    try:
        if setup.command is not None:
            return CommandObjective(setup.command, study, dict(setup.conf), metric)
        cls = imported or load_objective(setup.objective)
        return make_objective(cls, study=study, config=dict(setup.conf), metric=metric, device=device)
    except ObjectiveError as error:
        return LoadFailed(str(error), "")
    except BaseException as error:  # noqa: BLE001 -- told to the agent, which stops the study
        return LoadFailed(f"{setup.objective}: making Objective raised {error!r}", traceback.format_exc())


def attempt(
    objective: Callable[[Trial], Any], assignment: Assignment, channel: Channel, study: StudyInfo, relay: Relay
) -> Outcome:
    """Run the objective on the assignment. Never raises: a failure is an Outcome with its cause."""
    _headline(f"trial {assignment.number}, attempt {assignment.attempt}")
    trial = Trial(assignment, channel, study, relay.name)
    before = copy.deepcopy(assignment.conf)
    memory = PeakMemory()
    started = time.monotonic()
    with relay.serving(trial):
        ending = _run(objective, trial, study.metric)
    seconds = time.monotonic() - started
    _headline(f"trial {assignment.number}: {ending['state']} after {seconds:.1f} s")
    return Outcome(
        seconds=seconds,
        ended_at=started + seconds,
        metrics=scalars(trial.results),
        updates=changes(before, trial.conf),
        unread=trial.unread,
        memory=memory.measure(objective),
        **ending,
    )


def _run(objective: Callable[[Trial], Any], trial: Trial, metrics: Sequence[str]) -> dict[str, Any]:
    """Those fields of the Outcome that say how the objective ended."""
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
        if is_pruned(error):
            return {"state": PAUSED if trial.pauses else PRUNED}
        text = traceback.format_exc()
        _print(text)
        return {"state": FAIL, "cause": cause_of(error), "error": "\n".join(text.splitlines()[-_ERROR_LINES:])}


class PeakMemory:
    """The most memory that a trial takes from now on: of this process, or of its program; and of a GPU, by torch.

    A worker runs one trial after another: what an earlier one took at most is forgotten first, as Linux and torch can.
    """

    def __init__(self) -> None:
        self._is_known = False
        with suppress(OSError):  # a kernel, or a container, that does not let it
            (_OWN / "clear_refs").write_text("5")
            self._is_known = True
        ask_torch("reset_peak_memory_stats")

    def measure(self, objective: object) -> dict[str, float]:
        """What is known of it, in MiB, by its key in the trial's record."""
        found: dict[str, int | None] = {"peak_memory_mb": None}
        if isinstance(objective, CommandObjective):
            found["peak_memory_mb"] = objective.peak_memory
        elif self._is_known:
            # The result is there: whatever user code has done to the process, it is not to be lost for a figure.
            with suppress(Exception):
                match = _PEAK.search((_OWN / "status").read_text(errors="replace"))  # it holds the process's name
                found["peak_memory_mb"] = int(match[1]) << 10 if match else None
        found["peak_gpu_memory_mb"] = max(ask_torch("max_memory_allocated"), default=None)
        return {key: round(peak / (1 << 20), 1) for key, peak in found.items() if peak is not None}


def ask_torch(function: str) -> list[Any]:
    """What this function of torch.cuda says of each GPU; nothing where the process has not begun to use one by it."""
    try:
        cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None or not cuda.is_initialized():
            return []
        return [getattr(cuda, function)(device) for device in range(cuda.device_count())]
    except Exception:  # noqa: BLE001 -- a GPU that a trial has broken says nothing more; the trial has its own cause
        return []


def is_pruned(error: BaseException) -> bool:
    """Whether the objective gave the trial up. Recognised by name: Optuna is loaded only where user code loads it."""
    return isinstance(error, Pruned) or any(
        cls.__name__ == "TrialPruned" and cls.__module__.startswith("optuna") for cls in type(error).__mro__
    )


def cause_of(error: BaseException) -> str:
    """The cause that is stored with a trial whose objective raised `error`."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- the user's own __str__
        text = ""
    if isinstance(error, OutcomeError):
        return error.cause
    names = (cls.__name__ for cls in type(error).__mro__)
    if tells_of_memory("\n".join((*names, text))):
        return "out of memory"
    message = next(iter(text.splitlines()), "") + _advice(error)
    return f"exception: {type(error).__name__}: {message}".rstrip(": ") + hint_for(text)


def _advice(error: BaseException) -> str:
    """What to write instead of what has raised the error, where something takes its place here."""
    modules = {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)}
    if "optuna_integration.pytorch_distributed.pytorch_distributed" in modules:
        return "; leave TorchDistributedTrial out: each rank has a trial of its own here, and all get the same answers"
    if "optuna_integration.pytorch_lightning.pytorch_lightning" in modules and "RDBStorage" in str(error):
        return "; with several devices, take LightningPruningCallback of aimlhpo.callbacks"
    return ""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What an objective changed in its configuration in place: colon paths and their new values, as plain data.

    The study's own section is left out, and so are values that JSON cannot hold.
    """
    found: dict[str, Any] = {}
    for path, value in _changed(before, after, ""):
        if not path.startswith(_OUR_SECTION + ":"):
            with suppress(TypeError, ValueError, RecursionError):
                found[path] = plain(value)
    return found


def _changed(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in after.items():
            inner = f"{path}:{key}" if path else str(key)
            yield from _changed(before[key], value, inner) if key in before else [(inner, value)]
        return
    try:
        same = type(before) is type(after) and bool(before == after)
    except (TypeError, ValueError, RuntimeError):  # == gives no plain truth value, as with arrays
        same = False
    if not same:
        yield path, after


class StandardOutput:
    """Remembers where the worker's log is, so that what one trial closes, the next one finds open again.

    Made before any user code runs; standard output and error are one file.
    """

    def __init__(self) -> None:
        self._log = os.dup(1)

    def restore(self) -> None:
        """Open again what was closed; what user code put in place of it stays."""
        for number, name in ((1, "stdout"), (2, "stderr")):
            try:
                os.fstat(number)
            except OSError:
                try:
                    os.dup2(self._log, number)
                except OSError:  # busy: a thread that user code has left is opening something in its place
                    number = self._log
            stream = getattr(sys, name)
            if number == self._log or stream is None or getattr(stream, "closed", False):
                writer = os.fdopen(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, name, writer)


class WorkingDirectory:
    """Remembers the directory in which the objective was loaded: every trial starts there."""

    def __init__(self) -> None:
        self._directory = os.open(".", os.O_PATH | os.O_DIRECTORY)

    def restore(self) -> None:
        os.fchdir(self._directory)


class Terminations:
    """Notes each SIGTERM that user code handles, with whichever handler it has set by then.

    Python's own handler of signals in C writes to the wakeup descriptor before the one in Python is called.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The signals of children that user code forks are not this process's.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def watch(self) -> None:
        """Begin anew; to be called before each trial, as asyncio's event loops take the descriptor away."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.came()

    def came(self) -> bool:
        """Whether there was one."""
        noted = b""
        with suppress(BlockingIOError):
            while data := os.read(self._read, _CHUNK):
                noted += data
        return signal.SIGTERM in noted


def _headline(text: str) -> None:
    """Mark the trial's lines in the worker's log, in order with what the objective prints."""
    _print(f"==== {time.strftime('%Y-%m-%d %H:%M:%S')} {text} (pid {os.getpid()})")


def _print(text: str) -> None:
    """Write to the log where that can be done: an objective may have closed it, the disk may be full."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
        print(text, flush=True)
