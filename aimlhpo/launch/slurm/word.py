"""SLURM's word on who is alive, for the leases: cheap to ask often, and never a cause of waiting for long."""

from __future__ import annotations

import time

from aimlhpo.launch.slurm import arrays, queue
from aimlhpo.leases import Holder
from aimlhpo.paths import StudyPaths

_FRESH = 10.0  # seconds that an answer serves
_SILENT = 60.0  # seconds until SLURM is asked again after it did not answer
_TIMEOUT = 10.0  # seconds


class SlurmWord:
    """What SLURM says of an agent's job: runs (True), is gone (False), or nothing (None).

    One squeue call answers for all agents of the study.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self._jobs: list[queue.Job] | None = None
        self._arrays: frozenset[str] = frozenset()
        self._asked = -float("inf")

    def __call__(self, holder: Holder) -> bool | None:
        if holder.job is None:
            return None
        known = self.jobs()
        if known is None or holder.job.partition("_")[0] not in self._arrays:
            return None
        return queue.alive(known, holder.job, holder.restarts)

    def jobs(self) -> list[queue.Job] | None:
        """The study's jobs, as SLURM has shown them lately; None: it does not answer."""
        if time.monotonic() - self._asked > (_SILENT if self._jobs is None else _FRESH):
            self._arrays = frozenset(array.array_id for array in arrays.recorded(self._paths))
            self._jobs = queue.jobs(self._paths, timeout=_TIMEOUT)
            self._asked = time.monotonic()
        return self._jobs
