"""How many files and calls of the package a report, a freed slot and a cold claim pass through.

    python -m benchmarks.trace [--storage journal] [--sampler RandomSampler] [--calls]

A study with one slot is run three times while all its processes are profiled. Three things are measured, each of them
several times:

- report: from `trial.report` until `trial.should_prune` returns. Pruning is strict, so every report gets a decision.
- freed slot: from the message that a trial has ended until `train` of the next one begins, which was claimed ahead.
- cold claim: from the message that a new worker is ready until its first `train` begins. Before that, the trial has to
  be claimed, sampled and written. The few calls with which the agent notes what the worker runs on are included.

Each path is followed backwards from its end. A thread acts on what it received last: a message from a pipe, an item
from a queue, a notified condition. Another thread sent that, acting on something that it had received, and so on, back
to the beginning. The calls of each thread between receiving and sending are counted. What runs at the same time, or
afterwards, is not on the path.

Functions and lambdas in files of the package count, once for each call event that Python gives to a profile function: a
generator counts each time it is resumed. Comprehensions and the bodies of classes and modules do not count. Two kinds
of calls are left out:

- calls that the agent makes in every round of its main loop (it looks for dead workers, looks at the clock, updates
  the view), unless they lead to other calls. They are known from times at which nothing happens.
- calls of functions that occur in half of the measurements or fewer: work that is done now and then.

The measurement with the median number of calls is printed. The tool needs no private name of the package. It only
relies on threads and processes using the pipes of multiprocessing, SimpleQueue and Condition.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing.connection
import os
import queue
import sys
import tempfile
import textwrap
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import aimlhpo
from benchmarks import processes

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = str(Path(aimlhpo.__file__).parent) + os.sep
_RECORD = "AIMLHPO_TRACE"  # the environment variable that names the file to record into
_RUNS, _TRIALS = 3, 3  # trials in each run
_LIMIT = 120.0  # seconds for one run
_PIPE, _QUEUE = "pipe", "queue"
_SITECUSTOMIZE = "from benchmarks.trace import record\n\nrecord()\n"
_OBJECTIVE = """
import time

from aimlhpo import BaseObjective
from benchmarks.trace import mark

time.sleep(4)  # like importing a framework; the agent and its sampler start meanwhile


class Objective(BaseObjective):
    def train(self, trial, conf):
        mark("train")
        time.sleep(1.5)  # the next trial is claimed meanwhile
        for step in range(4):
            mark("report")
            trial.report(1.0, step)
            trial.should_prune()
            mark("decided")
            time.sleep(0.5)
        for _ in range(4):
            mark("idle")
            time.sleep(0.7)
            mark("idle over")
        return {"val_loss": conf["model"]["x"]}
"""


# --- in the processes of the study ---

_WHEN_CALLED = {
    multiprocessing.connection.Connection.send.__code__: "send",
    threading.Condition.notify.__code__: "send",
}
_WHEN_RETURNING = {
    multiprocessing.connection.Connection.recv.__code__: "receive",
    multiprocessing.connection.wait.__code__: "wake",
    threading.Condition.wait.__code__: "receive",
}
_OF_QUEUES = {("c_call", "put"): "send", ("c_return", "get"): "receive", ("c_return", "get_nowait"): "receive"}


def record() -> None:
    """Record this process from now on, all its threads, and the processes that are forked from it."""
    threading.setprofile(_profile)
    sys.setprofile(_profile)


def mark(name: str) -> None:
    """Record that the objective has reached this point."""
    _write("mark", "", name)


def _profile(frame: FrameType, event: str, argument: Any) -> None:
    code = frame.f_code
    if event == "call":
        if code.co_filename.startswith(_PACKAGE) and _is_function(code):
            _write("call", code.co_filename.removeprefix(_PACKAGE), code.co_qualname, _depth(frame))
        elif code in _WHEN_CALLED:
            _write(_WHEN_CALLED[code], "", _channel(frame))
    elif event == "return":
        if code in _WHEN_RETURNING:
            _write(_WHEN_RETURNING[code], "", _channel(frame))
    elif (event, argument.__name__) in _OF_QUEUES:
        channel = getattr(argument, "__self__", None)
        if isinstance(channel, queue.SimpleQueue):
            _write(_OF_QUEUES[event, argument.__name__], "", f"{_QUEUE} {id(channel)}")


def _channel(frame: FrameType) -> str:
    """The name of the condition. Pipes have none: nothing tells which two ends belong together."""
    is_condition = frame.f_code.co_filename == threading.__file__
    return f"condition {id(frame.f_locals['self'])}" if is_condition else _PIPE


def _is_function(code: CodeType) -> bool:
    """Whether it is the code of a function or a lambda, not of a comprehension, a class or a module."""
    is_named = code.co_name == "<lambda>" or not code.co_name.startswith("<")
    return is_named and bool(code.co_flags & inspect.CO_NEWLOCALS)


def _depth(frame: FrameType | None) -> int:
    """The number of calls into the package that are open."""
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename.startswith(_PACKAGE)
        frame = frame.f_back
    return depth


def _write(kind: str, file: str, function: str, depth: int = 0) -> None:
    """Append a line to the record. It is written at once, because workers are killed at the end."""
    thread = threading.current_thread()
    fields = time.monotonic_ns(), os.getpid(), os.getppid(), thread.name, thread.ident, kind, file, function, depth
    os.write(_open_record(), ("\t".join(map(str, fields)) + "\n").encode())


@cache
def _open_record() -> int:
    return os.open(os.environ[_RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


# --- the runs ---

Thread = tuple[int, int]


@dataclass(frozen=True)
class Event:
    """A line of the record.

    `kind` is call (into the package), mark (in the objective), send or receive (between threads or processes) or wake
    (after waiting for several pipes). `function` is the name of the mark, or of the channel that was used to send or
    receive. `depth` is the number of calls into the package that are open, this one included.
    """

    time: int
    process: int
    parent: int
    name: str
    ident: int
    kind: str
    file: str
    function: str
    depth: int

    @property
    def thread(self) -> Thread:
        return self.process, self.ident


def run(folder: Path, storage: str, sampler: str | None) -> list[Event]:
    """Run the study. Returns what was recorded, in order of time."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    command = [sys.executable, "-m", "aimlhpo", "optimize", *_write_study(folder, storage, sampler), "--local", "1"]
    path = os.pathsep.join([str(site), str(_ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, _RECORD: str(folder / "record")}
    for number in range(_RUNS):
        trials = ["-r", str(int(number > 0)), "-t", str(_TRIALS * (number + 1))]
        processes.run([[*command, *trials]], environment, folder / "log", _LIMIT)
    return sorted(_read(folder / "record"), key=lambda event: event.time)


def _write_study(folder: Path, storage: str, sampler: str | None) -> list[str]:
    """Write the objective and both YAML files. Returns the paths of the latter."""
    objective, hyperparameters, model = folder / "objective.py", folder / "hyperparameters.yml", folder / "model.yml"
    settings: dict[str, object] = {
        "name": "s", "objective": str(objective), "metric": "val_loss", "direction": "minimize", "n_trials": _TRIALS,
        "pruning": "strict", "claim_ahead": True,
        "parameters": {"model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}}},
    }  # fmt: skip
    if storage != "sqlite":
        settings["storage"] = storage
    if sampler is not None:
        settings["sampler"] = {"type": sampler}
    objective.write_text(_OBJECTIVE)
    hyperparameters.write_text(json.dumps({"log": {"save_path": str(folder / "run")}, "optuna": settings}))
    model.write_text(json.dumps({"model": {"x": 0.5}}))
    return [str(hyperparameters), str(model)]


def _read(file: Path) -> Iterator[Event]:
    for line in file.read_text().splitlines():
        moment, process, parent, name, ident, kind, path, function, depth = line.split("\t")
        yield Event(int(moment), int(process), int(parent), name, int(ident), kind, path, function, int(depth))


# --- the paths ---

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Call:
    """A call on a path; `process` is worker, agent or other."""

    process: str
    thread: str
    file: str
    function: str
    depth: int

    @property
    def key(self) -> Key:
        return self.process, self.thread, self.file, self.function


Calls = list[Call]


@dataclass(frozen=True)
class Span:
    """What a thread does between two moments."""

    thread: Thread
    begin: int
    end: int


class Record:
    """The events of all runs, in order of time."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._threads: dict[Thread, list[Event]] = defaultdict(list)
        self._sent: dict[tuple[int, str], list[Event]] = defaultdict(list)
        self._received: dict[tuple[int, str], list[Event]] = defaultdict(list)
        for event in events:
            self._threads[event.thread].append(event)
            if event.kind == "send":
                self._sent[event.process, event.function].append(event)
            elif event.kind == "receive":
                self._received[event.process, event.function].append(event)

    def measurements(self) -> dict[str, list[Calls]]:
        """The calls of all measurements by what is measured; under "idle", those made while nothing happens."""
        found: dict[str, list[Calls]] = {"report": [], "freed slot": [], "cold claim": [], "idle": []}
        for thread in dict.fromkeys(event.thread for event in self._events if event.kind == "mark"):
            marks = [event for event in self._threads[thread] if event.kind == "mark"]
            for begin, end in pairwise(marks):
                if begin.function == "report":
                    found["report"].append(self._path(begin, end))
                elif begin.function == "idle":
                    found["idle"].append(self._all_calls(begin, end))
            first, *others = (event for event in marks if event.function == "train")
            found["cold claim"].append(self._path(self._last_message(first), first))
            found["freed slot"] += [self._path(self._last_message(train), train) for train in others]
        return found

    def _last_message(self, train: Event) -> Event:
        """The last message that the training thread sent before it was given the trial."""
        mine = self._before(train)
        return next(event for event in mine if event.kind == "send" and event.function == _PIPE)

    def _all_calls(self, begin: Event, end: Event) -> Calls:
        """The calls of all threads between two events."""
        return [_as_call(e, end) for e in self._events if e.kind == "call" and begin.time <= e.time < end.time]

    def _path(self, begin: Event, end: Event) -> Calls:
        """The calls through which the one event leads to the other. Both are in the training thread."""
        spans: list[Span] = []
        reached = end
        while reached.time > begin.time:
            received, since = self._cause(reached)
            spans.insert(0, Span(reached.thread, max(since, begin.time), reached.time))
            reached = self._sending_of(received)
        # The training thread begins to wait for an answer before that is received: what it calls until then counts.
        asks = len(spans) > 1 and spans[0].thread == end.thread
        spans[-1] = Span(end.thread, spans[0].end if asks else begin.time, end.time)
        return [_as_call(event, end) for span in spans for event in self._calls_in(span)]

    def _cause(self, event: Event) -> tuple[Event, int]:
        """What the event's thread had received last, and since when the thread was awake for that."""
        before = self._before(event)
        received = next((each for each in before if each.kind == "receive"), None)
        if received is None:
            raise RuntimeError(f"nothing was sent to the thread of {event}")
        earlier = next((each for each in before if each.kind in ("receive", "wake")), received)
        return received, earlier.time if earlier.kind == "wake" else received.time

    def _sending_of(self, received: Event) -> Event:
        channel = received.process, received.function
        if received.function.startswith(_QUEUE):
            return self._sent[channel][self._received[channel].index(received)]
        sent = self._messages_to(received) if received.function == _PIPE else self._sent[channel]
        latest = max((each for each in sent if each.time < received.time), key=_time, default=None)
        if latest is None:
            raise RuntimeError(f"nothing was sent before {received}")
        return latest

    def _messages_to(self, received: Event) -> Iterator[Event]:
        """What was sent by the processes that may have a pipe to this one: its parent and its children."""
        for (process, channel), sent in self._sent.items():
            if channel == _PIPE and (process == received.parent or sent[0].parent == received.process):
                yield from sent

    def _before(self, event: Event) -> Iterator[Event]:
        """The events of the thread before this one, latest first."""
        mine = self._threads[event.thread]
        return reversed(mine[: bisect_left(mine, event.time, key=_time)])

    def _calls_in(self, span: Span) -> Iterator[Event]:
        mine = self._threads[span.thread]
        inside = mine[bisect_left(mine, span.begin, key=_time) : bisect_left(mine, span.end, key=_time)]
        return (event for event in inside if event.kind == "call")


def _time(event: Event) -> int:
    return event.time


def _as_call(event: Event, end: Event) -> Call:
    """The event as a call on a path that ends in a worker."""
    process = {end.process: "worker", end.parent: "agent"}.get(event.process, "other")
    return Call(process, event.name, event.file, event.function, event.depth)


# --- what is left out ---


def only_typical(measured: Sequence[Calls], idle: Sequence[Calls]) -> list[Calls]:
    """The measurements without what is also called while nothing happens or only now and then, the shortest first."""
    always = _frequent(idle)
    paths = [_without(always, calls) for calls in measured]
    frequent = _frequent(paths)
    return sorted(([call for call in calls if call.key in frequent] for calls in paths), key=len)


def _frequent(measured: Sequence[Calls]) -> set[Key]:
    """What is called in more than half of the measurements."""
    counts = Counter(key for calls in measured for key in {call.key for call in calls})
    return {key for key, count in counts.items() if count > len(measured) / 2}


def _without(always: set[Key], calls: Calls) -> Calls:
    """Leave out those that lead to no other calls. The last call in a thread stays: it leads to the next thread."""
    kept: Calls = []
    thread, depth = None, 0
    for call in reversed(calls):
        is_last = call.key[:2] != thread
        if is_last or call.key not in always or call.depth < depth:
            depth = call.depth
            kept.append(call)
        thread = call.key[:2]
    return kept[::-1]


# --- what is printed ---


def show(name: str, paths: Sequence[Calls], *, every_call: bool) -> None:
    """Print the path with the median number of calls, and how much that number varies."""
    calls = paths[(len(paths) - 1) // 2]
    files = sorted({call.file for call in calls})
    crossings = sum(one.key[:2] != other.key[:2] for one, other in pairwise(calls))
    print(f"{name}: {len(files)} files, {len(calls)} calls, {crossings} times on to another thread or process", end=" ")
    print(f"({len(paths)} measurements, {len(paths[0])} to {len(paths[-1])} calls)")
    print(textwrap.fill(", ".join(files), 110, initial_indent="    ", subsequent_indent="    "), end="\n\n")
    if every_call:
        show_calls(calls)


def show_calls(calls: Calls) -> None:
    """Print the calls in order, under the thread that makes them, indented by what they are called from."""
    for (process, thread), together in groupby(calls, key=lambda call: call.key[:2]):
        mine = list(together)
        least = min(call.depth for call in mine)
        print(f"    {process}, {thread}")
        for call in mine:
            print(f"        {'  ' * (call.depth - least)}{call.file}:{call.function}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", choices=("sqlite", "journal"), default="sqlite")
    parser.add_argument("--sampler", help="name of an Optuna sampler (default: that of aimlhpo)")
    parser.add_argument("--calls", action="store_true", help="also print every call, by process and thread")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aimlhpo-trace-") as folder:
        found = Record(run(Path(folder), arguments.storage, arguments.sampler)).measurements()
    idle = found.pop("idle")
    for name, measured in found.items():
        show(name, only_typical(measured, idle), every_call=arguments.calls)


if __name__ == "__main__":
    main()
