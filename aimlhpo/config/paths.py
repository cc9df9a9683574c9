"""The names of all files that a study keeps under its save_path, and how files are replaced.

`StudyPaths` names the files; `replace_file` writes one such that a reader finds the old file or the new one, whole.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ABANDONED_AFTER = 3600.0  # seconds; a temporary file this old was left by a writer that was killed


@dataclass(frozen=True)
class StudyPaths:
    """The files of one study. Results lie at the top of `save_path`, state in `.aimlhpo/`."""

    save_path: Path
    study_name: str

    @property
    def results(self) -> Path:
        return self.save_path / "results.csv"

    @property
    def best(self) -> Path:
        return self.save_path / "best.yml"

    @property
    def report(self) -> Path:
        return self.save_path / "report.html"

    @property
    def figures(self) -> Path:
        return self.save_path / "figures"

    @property
    def logs(self) -> Path:
        return self.save_path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.save_path / "checkpoints"

    @property
    def state(self) -> Path:
        return self.save_path / ".aimlhpo"

    @property
    def snapshot(self) -> Path:
        """Copies of both YAML files as they were when the study was last started."""
        return self.state / "config"

    @property
    def hyperparameters(self) -> Path:
        return self.snapshot / "hyperparameters.yml"

    @property
    def model(self) -> Path:
        return self.snapshot / "model.yml"

    @property
    def lock(self) -> Path:
        """The ledger's lock."""
        return self.state / "ledger.lock"

    @property
    def tracking_lock(self) -> Path:
        """Held by the process that sends trials to tracking tools."""
        return self.state / "tracking.lock"

    @property
    def leases(self) -> Path:
        return self.state / "leases"

    @property
    def outbox(self) -> Path:
        """Results that could not be delivered to the storage yet."""
        return self.state / "outbox"

    @property
    def jobs(self) -> Path:
        """One JSON file per submitted job array."""
        return self.state / "jobs"

    @property
    def kept_jobs(self) -> Path:
        """What is known of the jobs that the study's agents submit themselves, and of jobs that were taken away."""
        return self.state / "kept-jobs.json"

    @property
    def kept_jobs_lock(self) -> Path:
        """Held by whoever submits jobs from within a job, or takes some away."""
        return self.state / "kept-jobs.lock"

    @property
    def task_prolog(self) -> Path:
        """What SLURM runs at the start of each task that a training in a job starts with srun."""
        return self.state / "task-prolog"

    def checkpoint(self, number: int) -> Path:
        """The directory that trial `number` keeps between its attempts."""
        return self.checkpoints / f"trial-{number:05d}"

    def worker_log(self, agent: str, slot: int) -> Path:
        return self.logs / f"worker-{agent}-{slot}.log"

    def import_log(self, agent: str) -> Path:
        """What importing the objective prints, once for all workers of an agent."""
        return self.logs / f"import-{agent}.log"

    def create(self) -> None:
        """Make the directories; state is readable by the user alone. Raises OSError."""
        for directory in (self.save_path, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self.state, self.snapshot, self.leases, self.outbox, self.jobs):
            directory.mkdir(parents=True, exist_ok=True)
            os.chmod(directory, 0o700)


def replace_file(path: Path, text: str, mode: int = 0o644, *, lasting: bool = True) -> None:
    """Replace `path` by a file that holds `text` (UTF-8). Any number of writers may do so at once.

    A `lasting` file is on the disk when this returns; one that is not survives the process, but not the machine.
    Raises OSError, for example when the disk is full; the old file is then still there, whole.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{uuid.uuid4().hex}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(text.encode("utf-8", errors="backslashreplace"))
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if not lasting:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot sync a directory
            os.fsync(directory)
    finally:
        os.close(directory)
    limit = time.time() - ABANDONED_AFTER
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # another writer may be removing it too
            if leftover.stat().st_mtime < limit:
                leftover.unlink()
