"""The objective of a study with `command`: it runs a program once for each trial, and reads what the program prints.

Lines on standard output that hold a JSON object are metrics and reports; all others are passed on to the worker's log
unread. The program is started without a shell. It is stopped with SIGTERM first, with SIGKILL after a while, and so is
everything that it has started. All of this runs in the worker's training thread.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from aimlhpo.config.command import (
    CHECKPOINT_DIR,
    CONFIG,
    CONFIG_JSON,
    MASTER_ADDR,
    MASTER_PORT,
    NNODES,
    NODE_RANK,
    OF_NODES,
    PYTHON,
    TRIAL,
    arguments,
    placeholders,
)
from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.base import BaseObjective, MissingMetric, OutcomeError, Pruned
from aimlhpo.objective.messages import CommandSpec, find_program
from aimlhpo.objective.script import MARK
from aimlhpo.objective.trial import LAST_STEP
from aimlhpo.processes import adopt_orphans, children, descendants, kill_descendants, signal_descendants
from aimlhpo.worker.process_guard import start_guard
from aimlhpo.worker.ranks import FollowingChannel, free_port, without_process_group

STEP_KEYS = ("step", "epoch", "iteration")

_LONGEST = 1_000_000  # bytes; a longer line is no record
_CHUNK = 65536
_TAIL = 8192  # bytes of stderr that are kept
_CHECK_SECONDS = 0.2  # between two checks of the clock and of the newest decision
_POLL_SECONDS = 0.02  # between two checks of processes whose end nothing announces
_ERROR_LINES = 15
_OUT_OF_MEMORY = (  # errors of frameworks, and Python's; and what CUDA, its libraries and JAX say in others
    *("OutOfMemoryError", "ResourceExhaustedError", "MemoryError", "CUDA out of memory", "CUDA error: out of memory"),
    *("CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
    *("RESOURCE_EXHAUSTED: Out of memory", "RESOURCE_EXHAUSTED: Failed to allocate"),  # gRPC has others of that name
)


class ProgramFailed(OutcomeError):
    """The program could not be started, or ended with an exit code or a signal."""


class CommandObjective(BaseObjective):
    """Any program as the objective; `peak_memory` is that of the last one, in bytes, where it is known."""

    def __init__(self, spec: CommandSpec, study: Any, config: Mapping[str, Any], metric: str | list[str]) -> None:
        """Raises ObjectiveError where there is no such program in the worker's environment."""
        super().__init__(study, config, metric)
        self._spec = spec
        self.peak_memory: int | None = None
        program = spec.words[0]
        if find_program(program, spec.working_directory, spec.environment()) is None:
            raise ObjectiveError(
                f"optuna: command: no program {program!r} on PATH of the worker, or in {spec.working_directory}.\n"
                "    Name one that is there (in SLURM jobs, slurm: bash may load it)."
            )
        named = {name for word in spec.words for name in placeholders(word)}
        self._once_per_node = bool(named & set(OF_NODES))
        if os.environ.get("RANK", "0") != "0":
            adopt_orphans()  # else the guard would become a child of rank 0, which kills what its program leaves behind
        self._guarded = start_guard()
        self._others = children()  # other ranks of the trial and that guard, which are none of the program's processes
        adopt_orphans()

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        """Run the program to its end; returns the last value of everything it printed.

        Raises ProgramFailed, MissingMetric or Pruned.
        """
        metrics: dict[str, Any] = {}
        trial.record_results(metrics)
        try:
            self._run(trial, conf, metrics)
        finally:
            trial.record_results(metrics)
        for name in [self.metric] if isinstance(self.metric, str) else self.metric:
            if name not in metrics:
                printed = ", ".join(metrics) or "nothing"
                raise MissingMetric(
                    f"missing metric: {name}; printed: {printed}",
                    f'the program printed no line such as {{"{name}": 0.5}} on its standard output; '
                    f"metrics that it printed: {printed}",
                )
        return metrics

    def follow(self, trial: Any, conf: Mapping[str, Any], rank_zero: FollowingChannel) -> None:
        """In another rank of a trial, run the program, too, unless this node's first rank does that for all of them.

        What it prints is no result. It is stopped when rank 0 has given the trial up; after a result of rank 0 it has
        the time that a program has between SIGTERM and SIGKILL to end by itself. Raises ProgramFailed.
        """
        if self._once_per_node and os.environ["LOCAL_RANK"] != "0":
            return
        end = math.inf
        with outlive_sigterm() as sigterm_came, self._placeholders(trial, conf) as lookup:
            words = arguments(self._spec.words, lambda: trial.params, self._spec.pass_as, lookup)
            with self._start(words, trial, sigterm_came) as program:
                for _ in program.records():
                    if rank_zero.is_complete:
                        end = min(end, time.monotonic() + self._spec.kill_after)
                    if rank_zero.is_given_up or time.monotonic() > end:
                        program.stop()
                if not (program.stopping or rank_zero.is_given_up):
                    program.raise_failure()

    def _run(self, trial: Any, conf: Mapping[str, Any], metrics: dict[str, Any]) -> None:
        """Start the program and follow it to its end; what it prints goes into `metrics`."""
        reported = False
        with outlive_sigterm() as sigterm_came, self._placeholders(trial, conf) as lookup:
            words = arguments(self._spec.words, lambda: trial.params, self._spec.pass_as, lookup)
            self.peak_memory = None
            with self._start(words, trial, sigterm_came) as program:
                for record in program.records():
                    if record is not None:
                        metrics.update(record)
                        reported = self._report(record, trial) or reported
                    if reported and not program.stopping and trial.should_prune():
                        program.stop()
                pruned = program.stopping
                self.peak_memory = program.peak_memory
            if pruned:
                raise Pruned
            program.raise_failure()

    def _start(self, words: Sequence[str], trial: Any, sigterm_came: Callable[[], bool]) -> Program:
        variables = {  # aimlhpo.report and aimlhpo.checkpoint_dir read them
            "AIMLHPO_TRIAL": str(trial.number),
            "AIMLHPO_ATTEMPT": str(trial.attempt),
            "AIMLHPO_SEED": str(trial.seed),
            "AIMLHPO_CHECKPOINT_DIR": str(trial.checkpoint_dir),
        }
        given = without_process_group(os.environ) if self._once_per_node else os.environ
        environment = {**self._spec.environment(given), **self._guarded, **variables}
        try:
            return Program(self._spec, words, environment, sigterm_came, self._others)
        except (OSError, ValueError) as error:
            reason = str(error)
            if isinstance(error, OSError):  # it may be its working directory that is missing
                other = error.filename if error.filename not in (None, words[0]) else None
                reason = f"{error.strerror}" + (f": {other}" if other else "")
            raise ProgramFailed(f"cannot start {words[0]}: {reason}", f"cannot start {words}: {reason}") from None

    def _report(self, record: Mapping[str, Any], trial: Any) -> bool:
        """Report the metric that the study is pruned by; whether the record has it, and a step."""
        metric = self.study.reported_metric
        value, step = number(record.get(metric)), step_of(record)
        if metric is None or value is None or step is None:
            return False
        trial.report(value, step)
        return True

    @contextmanager
    def _placeholders(self, trial: Any, conf: Mapping[str, Any]) -> Iterator[Callable[[str], Any]]:
        """A function that gives a placeholder's value; files that were made for one are gone afterwards."""
        made: list[Path] = []

        def lookup(name: str) -> Any:
            if name in (CONFIG, CONFIG_JSON):
                made.append(self._write_config(trial.number, conf, as_json=name == CONFIG_JSON))
                return str(made[-1])
            if name == CHECKPOINT_DIR:
                return str(trial.checkpoint_dir)
            if name == PYTHON:
                return sys.executable
            if name in OF_NODES:
                return of_nodes(name)
            return trial.number if name == TRIAL else trial.suggest(name)

        try:
            yield lookup
        finally:
            for path in made:
                with suppress(FileNotFoundError):
                    path.unlink()
            with suppress(OSError):  # it stays where the program wrote something into it
                trial.checkpoint_dir.rmdir()

    def _write_config(self, number: int, conf: Mapping[str, Any], *, as_json: bool) -> Path:
        """Write the model configuration with the trial's values, without the study's own part."""
        from aimlhpo.config.yaml import dump_yaml  # few workers need YAML

        model = {key: value for key, value in conf.items() if key != "optuna"}
        folder = Path(self._spec.files)
        folder.mkdir(parents=True, exist_ok=True)
        rank = os.environ.get("RANK", "0")
        path = folder / f"trial-{number:05d}{'' if rank == '0' else '-' + rank}.{'json' if as_json else 'yml'}"
        path.write_text(json.dumps(model, indent=2, default=str) if as_json else dump_yaml(model), encoding="utf-8")
        return path


def of_nodes(name: str) -> str:
    """The value of a placeholder that describes the trial's nodes, from what `rank_environment` gives each rank."""
    if name == MASTER_PORT:
        return os.environ.get("MASTER_PORT") or str(free_port())
    variable, alone = {
        NNODES: ("GROUP_WORLD_SIZE", "1"),
        NODE_RANK: ("GROUP_RANK", "0"),
        MASTER_ADDR: ("MASTER_ADDR", "127.0.0.1"),
    }[name]
    return os.environ.get(variable, alone)


@contextmanager
def outlive_sigterm() -> Iterator[Callable[[], bool]]:
    """Let a SIGTERM to the process group end the program, not the worker; gives a function: whether one came."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, previous)


class Program:
    """A running program; at the end of the `with` block, everything that it has started and that still runs is killed.

    It stays in the worker's process group, so that whoever kills that group kills it too. `sigterm_came` says whether
    the group has had a SIGTERM, and the program with it. `spared` are children of the worker that it has not started.
    `peak_memory` is what the largest of its processes has had, in bytes, once it has ended by itself.
    """

    def __init__(
        self,
        spec: CommandSpec,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        sigterm_came: Callable[[], bool] = lambda: False,
        spared: Collection[int] = (),
    ) -> None:
        """Raises OSError where it cannot be started."""
        self._spared = spared
        self.peak_memory: int | None = None
        self._stderr_tail = b""
        self._kill_after, self._sigterm_came = spec.kill_after, sigterm_came
        self._lines = Records()
        self._deadline: float | None = None
        self._process = subprocess.Popen(
            arguments,
            cwd=spec.working_directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._selector = selectors.DefaultSelector()
        for stream, output in ((self._process.stdout, 1), (self._process.stderr, 2)):
            self._selector.register(stream, selectors.EVENT_READ, output)  # type: ignore[arg-type]

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        kill_descendants(self._spared)
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._deadline is not None

    def stop(self) -> None:
        """Send SIGTERM; `records` sends SIGKILL when the time for that is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._kill_after
            signal_descendants(signal.SIGTERM, self._spared)

    def records(self) -> Iterator[dict[str, Any] | None]:
        """Each JSON object that the program prints, and None now and then, until it has ended."""
        while True:
            if self._poll() is not None:
                # A shell dies at once of a SIGTERM that its child handles: what it has started has the same time.
                if self._deadline is None and self._sigterm_came():
                    self._deadline = time.monotonic() + self._kill_after
                if self._deadline is None or time.monotonic() >= self._deadline or not descendants(self._spared):
                    break
            yield from self._read(_CHECK_SECONDS)
            yield None
            if self._deadline is not None and time.monotonic() >= self._deadline:
                signal_descendants(signal.SIGKILL, self._spared)
        kill_descendants(self._spared)  # its children may hold its output open
        while self._selector.get_map():
            yield from self._read(0)
        yield from self._lines.end()

    def _read(self, timeout: float) -> Iterator[dict[str, Any]]:
        """What is there to read within `timeout` seconds."""
        if not self._selector.get_map():  # a program may close its output long before it ends
            time.sleep(min(timeout, _POLL_SECONDS))
            return
        for key, _ in self._selector.select(timeout):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
            data = stream.read(_CHUNK)
            if not data:
                self._selector.unregister(stream)
            elif key.data == 2:
                self._stderr_tail = (self._stderr_tail + data)[-_TAIL:]
                _write_to_log(2, data)
            else:
                _write_to_log(1, data.replace(MARK, b""))
                yield from self._lines.feed(data)

    def _poll(self) -> int | None:
        """How it has ended, where it has."""
        if self._process.returncode is None:
            try:
                pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            except ChildProcessError:  # the system has forgotten it, as where SIGCHLD is ignored
                return self._process.poll()
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_memory = usage.ru_maxrss << 10
        return self._process.returncode

    def code(self) -> int:
        """How it ended: its exit code, or minus the signal that killed it."""
        return self._process.wait()

    def raise_failure(self) -> None:
        """Raises ProgramFailed where it has not ended with exit code 0."""
        code = self.code()
        if code == 0:
            return
        cause = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        lines = self._stderr_tail.decode(errors="replace").splitlines()[-_ERROR_LINES:]
        if tells_of_memory("\n".join(lines)):
            cause = "out of memory"
        said = (
            "its last words on standard error:\n" + "\n".join(lines) if lines else "it wrote nothing to standard error"
        )
        raise ProgramFailed(cause, f"the program ended with {cause}; {said}")


def tells_of_memory(text: str) -> bool:
    """Whether an error, by its name or its message, says that the memory of the host or of a GPU was too small."""
    return any(word in text for word in _OUT_OF_MEMORY)


def _write_to_log(descriptor: int, data: bytes) -> None:
    """Write all of it to the worker's log; what a full disk does not take is lost, and the training goes on."""
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


class Records:
    """Finds the JSON objects in a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that the bytes complete, in order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = self._rest[-1:]
        for line in lines:
            text = line.strip().rpartition(MARK)[2].rpartition(b"\r")[2].strip()
            if text.startswith(b"{") and text.endswith(b"}"):
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                yield record

    def end(self) -> Iterator[dict[str, Any]]:
        """The object in a last line without a line break."""
        yield from self.feed(b"\n")


def step_of(record: Mapping[str, Any]) -> int | None:
    """The step that a record is a report of: `step`, else `epoch`, else `iteration`; None where it has none."""
    for key in STEP_KEYS:
        value = record.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_STEP:
            return value
    return None


def number(value: Any) -> float | None:
    """The number that can be reported, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
