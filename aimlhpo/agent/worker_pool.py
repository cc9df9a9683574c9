"""The slots of an agent's job with the workers in them.

`WorkerPool` starts, replaces and ends the workers; a `WorkerSlot` is one place for a trial: its worker and what that
worker runs; a `WorkerProcess` is the worker as its agent sees it: started, talked to, ended, and how it died. All of it
belongs to the agent's main thread. `TrialDispatcher` decides what the workers run.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from io import BytesIO
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aimlhpo.agent.fork_server import ForkedProcess, ForkServer
from aimlhpo.agent.progress import SlotState
from aimlhpo.agent.trial_store import PreparedTrial
from aimlhpo.config.command import command_spec
from aimlhpo.ledger.requests import Result
from aimlhpo.objective.messages import Report, Setup, Started, Stop, StudyInfo
from aimlhpo.processes import module_command
from aimlhpo.results.worker_log import WorkerLog
from aimlhpo.worker.devices import Slot
from aimlhpo.worker.nodes import LAUNCHER, RemoteProcesses
from aimlhpo.worker.ranks import without_process_group

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_TERM_PATIENCE = 5.0  # seconds that a worker has between SIGTERM and SIGKILL

KILLED_FOR_MEMORY = "out of memory: killed by the kernel"
"""The cause that is stored with the trial of such a worker."""

_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


# --- a worker ---


class UnreadableMessage(Exception):
    """A worker has sent an object that the agent cannot make: of a class of the objective's own, for example."""


class _MessageReader(pickle.Unpickler):
    """Reads a message. What is of a module that the agent has not loaded is refused: it never imports user code."""

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"an object of {module}.{name}")
        return super().find_class(module, name)


class WorkerProcess:
    """Starts a worker for a slot, with its own log file and its own GPU, and talks to it.

    It is forked of the fork server where that makes workers, and is then unknown until its first message; else it is
    started anew and imports the objective itself. On another node than the agent's it is a launcher that stands for it.

    Attributes:
        connection: the agent's end of the pipe.
        log: where the worker's standard output and error go.
        gone: whether it was ended from here.
        refused: why the system has made no process, where it has not.
    """

    def __init__(self, slot: Slot, setup: Setup, log: WorkerLog, fork_server: ForkServer | None = None) -> None:
        self.log = log
        self.gone = False
        self.refused: str | None = None
        self._setup, self._fork_server = setup, fork_server
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._memory_kills = count_memory_kills()
        self.connection, theirs = Pipe()
        log.path.parent.mkdir(parents=True, exist_ok=True)
        with theirs, open(log.path, "ab") as output:
            if (
                slot.agent_address is None
                and fork_server is not None
                and fork_server.ask(theirs.fileno(), output.fileno(), slot.environment())
            ):
                return
            role = 0 if slot.agent_address is None else LAUNCHER
            try:
                self._process = subprocess.Popen(
                    module_command("aimlhpo.worker", theirs.fileno(), os.getpid(), role),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    env={**without_process_group(os.environ), **slot.environment()},
                    start_new_session=True,
                )
            except OSError as error:  # no memory, or too many processes
                self.refused = error.strerror
                return
            if slot.agent_address is not None and setup.nodes is not None:
                with suppress(OSError):  # dead already
                    self.connection.send(RemoteProcesses(setup.nodes, {0: theirs.fileno()}, slot.agent_address))
        self._set_up()

    @property
    def pid(self) -> int | None:
        """The process's id, which is its session's, too; None before it is known."""
        return self._process.pid if self._process is not None else None

    @property
    def has_started(self) -> bool:
        """Whether there is, or was, a process."""
        return self._process is not None

    def has_ended(self) -> bool:
        """Whether there was a process, and is no more."""
        return self._process is not None and self._process.poll() is not None

    def receive(self) -> object:
        """The next message.

        Raises EOFError or OSError when the worker is dead, or will never be there, and UnreadableMessage.
        """
        try:
            message = _MessageReader(BytesIO(self.connection.recv_bytes())).load()
        except (EOFError, OSError):
            if self._fork_server is not None and not self.has_started:
                self._fork_server.retire()
            raise
        except Exception as error:
            raise UnreadableMessage(f"sent what cannot be read: {type(error).__name__}: {error}") from error
        if isinstance(message, Started) and self._fork_server is not None:
            self._process = self._fork_server.claim(message.pid)
            self._set_up()
        return message

    def _set_up(self) -> None:
        """Tell a new process what to load."""
        if self.gone:  # it was ended before it was known
            self.gone = False
            self.kill()
            return
        with suppress(OSError):  # dead already, which the next `receive` finds out
            self.connection.send(self._setup)

    def answer(self, message: object) -> None:
        """Send what it asked for; it may have died or been replaced meanwhile."""
        if not self.connection.closed:
            with suppress(OSError):
                self.connection.send(message)

    def begin_trial(self) -> int:
        """To be called before a trial is sent; returns where the trial's lines begin in the log, in bytes."""
        self._memory_kills = count_memory_kills()
        return self.log.end

    def terminate(self) -> None:
        """Send SIGTERM to the worker and its process group; a worker that handles it ends when its trial has."""
        if self._process is not None:
            self.answer(Stop())
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and everything it started, for certain, and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.gone = True

    def wait(self, timeout: float) -> None:
        """Wait for the worker's end, `timeout` seconds at most, then kill it."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.gone or self._process is None:  # its process group's number may be somebody else's by now
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def cause_of_death(self) -> str:
        """How the dead worker ended, in the words that are stored with its trial."""
        if self._process is None:
            return f"not started: {self.refused}" if self.refused else "not started"
        code = self._process.wait()
        if code == -signal.SIGKILL and count_memory_kills() > self._memory_kills:
            return KILLED_FOR_MEMORY
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def count_memory_kills(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> int:
    """How many processes of this one's memory cgroup the kernel has killed for want of memory.

    Version 2 counts in memory.events, version 1 in memory.oom_control; 0 where the kernel does not say.
    """
    with suppress(OSError):
        for line in mine.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                file = cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            elif not controllers and (cgroups / "cgroup.controllers").exists():
                file = cgroups / path.lstrip("/") / "memory.events"
            else:
                continue
            counts = (entry.split() for entry in file.read_text().splitlines())
            return next((int(words[1]) for words in counts if words[0] == "oom_kill"), 0)
    return 0


# --- slots ---


class WorkerState(Enum):
    """STARTING -> IDLE <-> CLAIMING -> BUSY -> IDLE ... -> RETIRED; and ENDED -> STARTING, for a new worker."""

    ENDED = auto()
    STARTING = auto()
    IDLE = auto()
    CLAIMING = auto()
    BUSY = auto()
    RETIRED = auto()


@dataclass
class CurrentTrial:
    """The trial that a slot runs.

    Attributes:
        started: when, on the monotonic clock.
        log_offset: where the trial's lines begin in the worker's log, in bytes.
        reports: all of this attempt, in order.
        gpu_share: how many GPUs it is counted to cost.
        alone: whether the other slots of its GPU stay empty meanwhile.
    """

    prepared: PreparedTrial
    started: float
    log_offset: int
    gpu_share: float = 0.0
    reports: list[Report] = field(default_factory=list)
    alone: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class WorkerSlot:
    """One slot: its worker, replaced when it dies, and the trial it runs.

    Attributes:
        retry_at: when the slot may claim again after it found nothing, or start a worker again after one could not load
            the objective, on the monotonic clock.
        early_deaths: how many of its workers in a row have ended before they were ready.
        retry_alone: a trial that ran out of memory here, to be run again with the GPU to itself.
        retry_seconds: what the attempt took in which it ran out of memory.
        failure: the result of the slot's last trial, where it has failed: until it is stored, nothing starts here.
        provenance: the id of what the worker runs on, as it is stored with the trials.
        steps: how many reports, and ends of trials, have come from here.
        closing: whether it is not used any more once the trial that it runs, or is to run again, has ended.
    """

    def __init__(self, slot: Slot, start: Callable[[Slot], WorkerProcess]) -> None:
        self.slot = slot
        self.state = WorkerState.STARTING
        self.running: CurrentTrial | None = None
        self.retry_at = 0.0
        self.early_deaths = 0
        self.retry_alone: PreparedTrial | None = None
        self.retry_seconds = 0.0
        self.failure: Result | None = None
        self.provenance = ""
        self.steps = 0
        self.closing = False
        self._start = start
        self.worker = start(slot)

    def run(self, prepared: PreparedTrial, *, alone: bool = False) -> None:
        """Send the trial to the worker; `alone` keeps the other slots of this GPU empty meanwhile."""
        self.state = WorkerState.BUSY
        offset, share = self.worker.begin_trial(), self.slot.all_gpus if alone else self.slot.gpu_share
        self.running = CurrentTrial(prepared, time.monotonic(), offset, share, alone=alone)
        with suppress(OSError):  # the worker has just died, which the end of its pipe will show
            self.worker.connection.send(prepared.assignment)

    def clear(self) -> CurrentTrial | None:
        """Take the trial out of the slot, which is idle from now on."""
        running, self.running = self.running, None
        self.steps += 1
        self.state = WorkerState.IDLE
        self.retry_at = 0.0
        return running

    def retire(self) -> None:
        """Give this slot no more trials; its worker ends by itself."""
        self.state = WorkerState.RETIRED
        with suppress(OSError):
            self.worker.connection.send(Stop())

    def end_worker(self) -> None:
        """Kill the worker, which gives back all memory that it holds; the slot is used again after `start_worker`."""
        self.worker.kill()
        self.worker.connection.close()
        self.state = WorkerState.ENDED

    def start_worker(self) -> None:
        self.worker = self._start(self.slot)
        self.state = WorkerState.STARTING

    @property
    def wants_to_be_alone(self) -> bool:
        """Whether the slots that share its GPU should stay empty."""
        return self.retry_alone is not None or (self.running is not None and self.running.alone)

    @property
    def prepares_to_be_alone(self) -> bool:
        """Whether its worker was started for a trial that has its GPU to itself."""
        return self.retry_alone is not None and self.state is not WorkerState.ENDED

    @property
    def has_worker(self) -> bool:
        """Whether there is a worker, as far as is known, that will be given trials."""
        return self.state not in (WorkerState.ENDED, WorkerState.RETIRED)

    @property
    def is_closed(self) -> bool:
        """Whether it is not used any more, while others go on."""
        return self.closing and self.state is WorkerState.RETIRED

    def show(self) -> SlotState:
        """The slot as the live view shows it."""
        running = self.running
        if running is None:
            return SlotState(self.slot.index, self.slot.label)
        last = running.reports[-1] if running.reports else None
        report = (last.step, last.value) if last else None
        return SlotState(self.slot.index, self.slot.label, running.prepared.claim.number, running.seconds, report)


class WorkerPool:
    """One WorkerSlot for each slot of the job, from `start_workers` on; for those on demand, once they are opened.

    Workers are forked from one process that has imported the objective for all of them. Within the `with` block that
    process is there: `fork_server` if the command has started it already, else one of the pool's own, which starts to
    import at once.

    Attributes:
        slots: filled by `start_workers` and `open`, in the main thread; the storage thread reads it (`busy`).
        told_to_end_at: when the workers were told to end, on the monotonic clock.
    """

    def __init__(
        self, config: Config, agent: str, slots: Sequence[Slot], fork_server: ForkServer | None = None
    ) -> None:
        self._config, self._agent, self._devices = config, agent, slots
        self._fork_server = fork_server
        self.slots: list[WorkerSlot] = []
        bound = config.log.max_mb_per_worker
        self._logs = [WorkerLog(config.paths.worker_log(agent, slot.index), bound) for slot in slots]
        self.told_to_end_at = math.inf

    def __enter__(self) -> Self:
        log = self._config.paths.import_log(self._agent)
        if self._fork_server is not None:
            self._fork_server.write_log(log)
        else:
            with suppress(OSError):  # the system refuses a process: each worker is then started, and told of, by itself
                self._fork_server = ForkServer(log)
                # The first slot's environment: thread numbers are read at import, and slots have equally many GPUs.
                self._fork_server.load(self._config.optuna.objective or "", self._devices[0].environment())
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._fork_server is not None:
            self._fork_server.close()

    def start_workers(self) -> None:
        self.slots = [WorkerSlot(slot, self._start_worker) for slot in self._devices if not slot.on_demand]

    @property
    def on_demand(self) -> list[Slot]:
        """The slots that are there to be opened."""
        return [slot for slot in self._devices if slot.on_demand]

    def open(self, slot: Slot) -> WorkerSlot:
        """Start a worker in one of the slots on demand."""
        self.slots.append(WorkerSlot(slot, self._start_worker))
        return self.slots[-1]

    def _start_worker(self, slot: Slot) -> WorkerProcess:
        """A new worker for the slot; one that is forked is known only once it is heard."""
        options = self._config.optuna
        position = options.reported_metric
        reported = options.metric[position] if position is not None else None
        study = StudyInfo(options.study_name, tuple(options.direction), tuple(options.metric), reported)
        command = command_spec(self._config)
        log, nodes = self._logs[slot.index], slot.nodes
        if nodes is not None:
            nodes = replace(nodes, log=str(log.path), log_megabytes=self._config.log.max_mb_per_worker)
        setup = Setup(options.objective or "", self._config.conf(), slot.device, study, command, slot.ranks, nodes)
        return WorkerProcess(slot, setup, log, self._fork_server)

    def trim_logs(self) -> None:
        """Keep the workers' logs within their bound."""
        for log in self._logs:
            log.trim()

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def busy(self) -> list[WorkerSlot]:
        return [slot for slot in self.slots if slot.state is WorkerState.BUSY]

    @property
    def all_retired(self) -> bool:
        return all(slot.state is WorkerState.RETIRED for slot in self.slots)

    def neighbours(self, slot: WorkerSlot) -> list[WorkerSlot]:
        """The slots in use that share a GPU with this one."""
        others = (other for other in self.slots if other is not slot and other.state is not WorkerState.RETIRED)
        return [other for other in others if slot.slot.shares_gpus_with(other.slot)]

    def claim_again(self) -> None:
        """A trial has ended: slots that found nothing to claim need not wait longer."""
        for slot in self.slots:
            slot.retry_at = 0.0

    def end_workers(self) -> None:
        """End all workers, by SIGTERM first."""
        self.told_to_end_at = min(self.told_to_end_at, time.monotonic())
        for slot in self.slots:
            slot.worker.terminate()
        deadline = time.monotonic() + _TERM_PATIENCE
        for slot in self.slots:
            slot.worker.wait(max(0.0, deadline - time.monotonic()))
        self.trim_logs()
