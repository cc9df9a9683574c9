"""How many trials share a GPU with `trials_per_gpu: auto`: one at first, and one more while there is room for it.

`trials_that_fit` is the rule, a function of what was measured. `Packing` measures, and opens and closes slots, in the
agent's main thread. `GpuSensor` is what it measures with: nvidia-ml-py, of the extra `gpu`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.worker_pool import WorkerState

if TYPE_CHECKING:
    from aimlhpo.agent.worker_pool import CurrentTrial, WorkerPool, WorkerSlot
    from aimlhpo.worker.devices import Slot

FREE_SHARE = 0.1  # of a GPU's memory, which stays free: for fragments, and for a trial larger than those so far
BUSY_SHARE = 0.8  # of the time: a GPU that computes for longer has no room for another trial
FEWEST_READINGS, MOST_READINGS = 10, 60  # that are judged: the newest ones
SETTLING_STEPS = 3  # reports, or ends of trials, of every slot before its GPU is judged; readings count from the first
INTERVAL = 1.0  # seconds between two readings
_MIB = 1 << 20


class GpuUnreadable(Exception):
    """A GPU's memory and utilisation cannot be read, or trials cannot share it; the message says why."""


@dataclass(frozen=True)
class GpuReading:
    """A GPU at one moment; memory in bytes.

    Attributes:
        used: by whatever process.
        utilisation: the share of the last moments in which it computed; None where the GPU does not say (MIG).
        by_process: the memory of each process that is known, by its id; none in a container that hides them.
        others: what no trial of this agent takes, as far as the processes are known.
    """

    total: int
    used: int
    utilisation: float | None = None
    by_process: dict[int, int] = field(default_factory=dict)
    others: int = 0


def trials_that_fit(readings: Sequence[GpuReading], largest: int, running: int, most: int) -> int:
    """How many trials may share a GPU on which `running` do: as many, or one more.

    Args:
        readings: since each of these trials has begun to report.
        largest: bytes that one trial took at most, of all so far: each of those to come may take as much.
        most: as many as may ever share it.
    """
    if running >= most or len(readings) < FEWEST_READINGS:
        return running
    room = min(reading.total for reading in readings) * (1 - FREE_SHARE) - max(reading.others for reading in readings)
    known = [reading.utilisation for reading in readings if reading.utilisation is not None]
    is_busy = bool(known) and sum(known) / len(known) > BUSY_SHARE
    return running + (not is_busy and (running + 1) * largest <= room)


class GpuSensor:
    """Reads the GPUs of this machine. Both methods raise GpuUnreadable."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise GpuUnreadable("nvidia-ml-py is missing (pip install 'aimlhpo[gpu]')") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuUnreadable(f"NVML does not answer ({error})") from error

    def read(self, gpu: str) -> GpuReading:
        """The GPU of this name, as CUDA_VISIBLE_DEVICES has it: a number, or the UUID of a GPU or a MIG device."""
        nvml = self._nvml
        try:
            find = nvml.nvmlDeviceGetHandleByIndex if gpu.isdigit() else nvml.nvmlDeviceGetHandleByUUID
            handle = find(int(gpu) if gpu.isdigit() else gpu)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            # What a GPU, its driver or the system's administrator does not tell is done without.
            silent = (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound)
            mode, utilisation, processes, is_divided = None, None, [], False
            with suppress(*silent):
                mode = nvml.nvmlDeviceGetComputeMode(handle)
            with suppress(*silent):
                utilisation = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            with suppress(*silent):
                processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            with suppress(nvml.NVMLError):
                is_divided = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
        except nvml.NVMLError as error:
            raise GpuUnreadable(f"NVML cannot read GPU {gpu} ({error})") from error
        if is_divided and gpu.isdigit():
            raise GpuUnreadable(f"GPU {gpu} is divided (MIG); name its devices by UUID in CUDA_VISIBLE_DEVICES")
        if mode in (nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.NVML_COMPUTEMODE_PROHIBITED):
            raise GpuUnreadable(f"GPU {gpu} is set to take one process at a time (its compute mode)")
        taken = {process.pid: process.usedGpuMemory for process in processes if process.usedGpuMemory}
        taken.pop(0, None)  # where a process is not told; to the system, 0 is whoever asks
        return GpuReading(memory.total, memory.used, utilisation, taken)


@dataclass
class SharedGpu:
    """What is known of one GPU since a slot of it was last opened or closed.

    Attributes:
        spare: its slots that are not open.
        steps: the steps of each slot at that time, by the slot's index.
        peaks: the most memory of each trial that runs, by its number; `largest` is that of all that have ended, without
            those that the GPU was too small for.
    """

    spare: list[Slot]
    readings: deque[GpuReading] = field(default_factory=lambda: deque(maxlen=MOST_READINGS))
    steps: dict[int, int] = field(default_factory=dict)
    peaks: dict[int, int] = field(default_factory=dict)
    largest: int = 0


class Packing:
    """Opens slots on demand where a GPU has room, and closes one where a trial has run out of memory beside others.

    `log` shows the user a line.

    Runs in: the main thread.
    """

    def __init__(self, pool: WorkerPool, log: Callable[[str], None]) -> None:
        self._pool, self._log = pool, log
        self._gpus: dict[tuple[str, ...], SharedGpu] = {}
        for slot in pool.on_demand:
            self._gpus.setdefault(slot.gpus, SharedGpu([])).spare.append(slot)
        self._sensor: GpuSensor | None = None
        self._next = 0.0

    def poll(self, may_start: Callable[[], bool]) -> None:
        """Read the GPUs that may yet get another trial, now and then, and give each that has room one slot more.

        `may_start` says whether the agent still starts trials.
        """
        now, sharing = time.monotonic(), {names: gpu for names, gpu in self._gpus.items() if gpu.spare}
        if now < self._next or not sharing:
            return
        self._next = now + INTERVAL
        if not may_start():
            return
        try:
            self._sensor = self._sensor or GpuSensor()
        except GpuUnreadable as error:
            self._give_up(error, list(sharing.values()))
            return
        for names, gpu in sharing.items():
            try:
                reading = self._sensor.read(names[0])
            except GpuUnreadable as error:
                self._give_up(error, [gpu], "it")
            else:
                self._judge(gpu, self._open_slots(names), reading)

    def _give_up(self, error: GpuUnreadable, gpus: Sequence[SharedGpu], which: str = "each GPU") -> None:
        self._log(f"trials_per_gpu: auto: {error}; the number of trials on {which} stays as it is")
        for gpu in gpus:
            gpu.spare.clear()

    def note_out_of_memory(self, slot: WorkerSlot, trial: CurrentTrial, memory: str, *, shared: bool) -> None:
        """The trial in this slot has run out of memory; where others share the GPU, one fewer does for good.

        Where another one is to run alone, too, both have run out in the same collision, and one slot is closed for it.
        `memory` says whose memory, to the user.
        """
        number = trial.prepared.claim.number
        self._gpus[slot.slot.gpus].peaks.pop(number, None)
        if shared:
            slots = self._open_slots(slot.slot.gpus)
            happened = f"trial {number} has run out of {memory} memory beside others and runs again alone"
            if any(other.wants_to_be_alone for other in self._pool.neighbours(slot)):
                self._log(f"{slot.slot.label}: {happened}")
            else:
                self._close(slots[-1] if len(slots) > 1 else None, slot, happened)

    def note_load_failure(self, slot: WorkerSlot) -> None:
        """The worker of this slot on demand could not load the objective beside others."""
        self._close(slot, slot, "a worker could not load the objective beside others (see its log)")

    def _close(self, closed: WorkerSlot | None, slot: WorkerSlot, why: str) -> None:
        """Close a slot of the GPU of `slot`, where there is one to close, and open no other from now on."""
        self._gpus[slot.slot.gpus].spare.clear()
        if closed is not None:
            closed.closing = True
        slots = self._open_slots(slot.slot.gpus)
        self._log(f"{slot.slot.label}: {why}; {len(slots)} at a time from now on")
        share_out(slots)

    def _open_slots(self, gpus: tuple[str, ...]) -> list[WorkerSlot]:
        return [slot for slot in self._pool.slots if slot.slot.gpus == gpus and not slot.closing]

    def _judge(self, gpu: SharedGpu, slots: list[WorkerSlot], reading: GpuReading) -> None:
        """Take this reading, and open another slot where all that is known says so."""
        reading = self._note_memory(gpu, slots, reading)
        steps = [slot.steps - gpu.steps.get(slot.slot.index, 0) for slot in slots]
        if min(steps) < 1 or 0 in gpu.peaks.values():  # one has not come past its start
            return
        gpu.readings.append(reading)
        if min(steps) < SETTLING_STEPS or any(slot.state is not WorkerState.BUSY for slot in slots):
            return
        largest = max([gpu.largest, *gpu.peaks.values()])
        if trials_that_fit(gpu.readings, largest, len(slots), len(slots) + len(gpu.spare)) > len(slots):
            slots.append(self._pool.open(gpu.spare.pop(0)))
            share_out(slots)
            gpu.readings.clear()
            gpu.steps = {slot.slot.index: slot.steps for slot in slots}
            self._log(
                f"{slots[0].slot.label}: {len(slots)} trials at a time from now on (the largest so far took "
                f"{largest // _MIB} of {reading.total // _MIB} MiB)"
            )

    def _note_memory(self, gpu: SharedGpu, slots: Sequence[WorkerSlot], reading: GpuReading) -> GpuReading:
        """Keep the most that each trial has taken; returns the reading with what others take.

        A trial's processes are those of its worker's session; before it uses the GPU it has none there. Where NVML
        tells none that are known here, all is shared out evenly.
        """
        own, are_known = dict.fromkeys((slot.worker.pid for slot in slots), 0), False
        for process, memory in reading.by_process.items():
            with suppress(OSError, OverflowError):  # it has ended, or its number means nothing here
                session, are_known = os.getsid(process), True
                if session in own:
                    own[session] += memory
        running = [(slot.running.prepared.claim.number, slot) for slot in slots if slot.running is not None]
        for number in gpu.peaks.keys() - {number for number, _ in running}:
            gpu.largest = max(gpu.largest, gpu.peaks.pop(number))
        for number, slot in running:
            taken = own[slot.worker.pid] if are_known else reading.used // len(running)
            gpu.peaks[number] = max(taken, gpu.peaks.get(number, 0))
        return replace(reading, others=reading.used - sum(own.values())) if are_known else reading


def share_out(slots: Sequence[WorkerSlot]) -> None:
    """Have trials that begin in these slots from now on cost an equal share of their GPU."""
    for slot in slots:
        slot.slot = replace(slot.slot, gpu_share=1 / len(slots))
