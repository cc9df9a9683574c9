"""Every error that aimlhpo raises on purpose, and the exit code that each one ends the command with.

    AimlhpoError                 1
    |-- ConfigError              2   something in the YAML files or on the command line
    |-- StudyError               2   the study in the storage and the request do not fit
    |-- ObjectiveError           2   objective.py cannot be loaded
    |-- DeviceError              2   the GPUs that were asked for are not there
    |-- StudyFailed              4   the study ran and had to be given up
    |-- StorageError             4   the storage cannot be reached or read
    |-- SubmissionError          5   SLURM did not take the jobs
    `-- Interrupted            130   stopped by the user (Ctrl-C, SIGTERM)

Every message fits on one screen and says what was found, what is legal, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit status means."""

    DONE = 0
    INTERNAL = 1
    CONFIG = 2
    NOTHING_TO_DO = 3
    STUDY_FAILED = 4
    SUBMISSION_FAILED = 5
    INTERRUPTED = 130


class AimlhpoError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code = ExitCode.INTERNAL


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what was found there, what is legal, and a guess at what was meant."""

    where: str
    found: str
    legal: str | None = None
    suggestion: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.found}"]
        if self.legal:
            lines.append(f"    legal: {self.legal}")
        if self.suggestion:
            lines.append(f"    did you mean: {self.suggestion}")
        return "\n".join(lines)


class ConfigError(AimlhpoError):
    """All problems of the configuration at once."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StudyError(AimlhpoError):
    """The stored study and the request do not fit; nothing was touched."""

    exit_code = ExitCode.CONFIG


class ObjectiveError(AimlhpoError):
    """The objective file cannot be loaded; `detail` holds its own traceback, shown last."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{message}\n\n{detail}" if detail else message)

    def __reduce__(self) -> tuple[type[ObjectiveError], tuple[str, str]]:
        message = str(self.args[0]).removesuffix(f"\n\n{self.detail}") if self.detail else str(self.args[0])
        return type(self), (message, self.detail)


class DeviceError(AimlhpoError):
    """A GPU was asked for and none is visible."""

    exit_code = ExitCode.CONFIG


class StudyFailed(AimlhpoError):
    """The study was given up, for example after too many consecutive failures."""

    exit_code = ExitCode.STUDY_FAILED


class StorageError(AimlhpoError):
    """The storage cannot be reached, opened or read."""

    exit_code = ExitCode.STUDY_FAILED


class SubmissionError(AimlhpoError):
    """SLURM refused the jobs, or could not be asked; holds SLURM's own words."""

    exit_code = ExitCode.SUBMISSION_FAILED


class Interrupted(AimlhpoError):
    """The user stopped the command; what was running was released."""

    exit_code = ExitCode.INTERRUPTED
