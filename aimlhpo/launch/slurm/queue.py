"""What SLURM has of a study's jobs, from one squeue call. Accounting may be off: sacct is never asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from aimlhpo.launch.slurm import arrays, program, timelimit
from aimlhpo.paths import StudyPaths

# Columns of fixed width: unlike separators, every SLURM has them. Those that users can fill come last.
_COLUMNS = {
    "ArrayJobID": 24, "ArrayTaskID": 24, "JobID": 24, "State": 24, "RestartCnt": 12,
    "TimeLeft": 24, "NodeList": 128, "Reason": 128, "Command": 4096,
}  # fmt: skip
_FORMAT = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
_UNKNOWN_ID = re.compile(r"invalid job id", re.IGNORECASE)
ENDED = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
})  # fmt: skip
_HELD = frozenset({"RUNNING", "SUSPENDED", "SIGNALING", "STOPPED"})


@dataclass(frozen=True)
class Job:
    """One job in SLURM's queue; `time_left` is in seconds."""

    array_id: str
    index: int | None
    raw_id: str
    state: str
    restarts: int
    time_left: int | None
    node: str | None
    reason: str | None
    script: str | None = None

    @property
    def job_id(self) -> str:
        """As users and SLURM's own output write it: `1234_5`."""
        return self.array_id if self.index is None else f"{self.array_id}_{self.index}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def running(self) -> bool:
        return self.state in _HELD

    @property
    def pending(self) -> bool:
        return not self.ended and not self.running and self.state != "COMPLETING"


def jobs(paths: StudyPaths, timeout: float = program.TIMEOUT) -> list[Job] | None:
    """The jobs that SLURM still knows, those that ended lately included; None: SLURM does not answer."""
    recorded = arrays.recorded(paths)
    found: list[Job] = []
    for cluster in {array.cluster for array in recorded}:
        mine = {array.array_id: array for array in recorded if array.cluster == cluster}
        asked = ask(mine, cluster, timeout)
        if asked is None:
            return None
        found += (job for job in asked if _is_of(mine.get(job.array_id), job))
    return sorted(found, key=lambda job: (int(job.array_id), job.index or 0))


def ask(job_ids: Iterable[str], cluster: str | None = None, timeout: float = program.TIMEOUT) -> list[Job] | None:
    """What squeue says of these jobs or arrays; an empty list: they are gone; None: SLURM does not answer."""
    wanted = f"--jobs={','.join(job_ids)}"
    shown = ("--noheader", "--array", "--states=all", f"--Format={_FORMAT}")
    answer = program.ask("squeue", *program.on_cluster(cluster), *shown, wanted, timeout=timeout)
    if not answer.ok:
        return [] if answer.code is not None and _UNKNOWN_ID.search(answer.words) else None
    return list(_read(answer.out))


def alive(known: Iterable[Job], job_id: str, restarts: int) -> bool | None:
    """Whether the job runs, in the same start of it, from what squeue has said; None: it is just ending."""
    job = next((job for job in known if job_id in (job.job_id, job.raw_id)), None)
    if job is None or job.ended:
        return False
    if job.state == "COMPLETING":  # its processes may still be there, whatever its next start is
        return None
    return job.restarts == restarts if job.running else False


def _is_of(array: arrays.Array | None, job: Job) -> bool:
    """Whether the job is the study's: ids are used again some day, but the script's name is unique."""
    if array is None:
        return False
    return not (array.script and job.script) or PurePath(job.script).name == array.script


def _read(text: str) -> Iterator[Job]:
    for line in text.splitlines():
        row, start = {}, 0
        for name, width in _COLUMNS.items():
            row[name], start = line[start : start + width].strip(), start + width
        if row["JobID"].isdigit():
            yield _job(row)


def _job(row: dict[str, str]) -> Job:
    index = row["ArrayTaskID"]
    array = row["ArrayJobID"]
    return Job(
        array_id=array if array.isdigit() else row["JobID"],
        index=int(index) if index.isdigit() else None,
        raw_id=row["JobID"],
        state=row["State"],
        restarts=int(row["RestartCnt"]) if row["RestartCnt"].isdigit() else 0,
        time_left=timelimit.seconds(row["TimeLeft"]),
        node=row["NodeList"] or None,
        reason=None if row["Reason"] in ("", "None") else row["Reason"],
        script=row["Command"] or None,
    )
