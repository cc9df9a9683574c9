"""What is asked of SLURM, as plain data: everything that the batch script says, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Python:
    """The interpreter that runs the agent."""

    command: tuple[str, ...]
    """The words of the command, for example `apptainer exec image.sif python`."""
    prefer_activated: bool = False
    """Take the `python` that `kernel:` or `bash:` put on PATH, where it can import aimlhpo."""
    path: str | None = None
    """A directory that PYTHONPATH needs, where aimlhpo runs from its sources."""


@dataclass(frozen=True)
class Submission:
    """One job array of a study: `jobs` elements from index `first`, each one agent on one node."""

    study: str
    save_path: str
    jobs: int
    options: tuple[tuple[str, str | None], ...]
    """sbatch's options by long name, in the order written, repeats included; None: without a value."""
    python: Python
    log: str
    """Where the standard output of each job goes, in SLURM's patterns."""
    bash: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    first: int = 0
    at_once: int | None = None
    """At most so many elements of the array run at the same time."""

    def value(self, option: str) -> str | None:
        """The last value given for `option`, or None."""
        found = [value for name, value in self.options if name == option]
        return found[-1] if found else None

    def part(self, first: int, jobs: int) -> Submission:
        """The same, with other elements."""
        return replace(self, first=first, jobs=jobs)
