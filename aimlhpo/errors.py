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

Every message fits on one screen and says what was found, what is legal, and what to do: a `Problem`. The functions
below write its parts, and numbers and times as people read them.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import Any


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
        self.message, self.detail = message, detail
        super().__init__(f"{message}\n\n{detail}" if detail else message)

    def __reduce__(self) -> tuple[type[ObjectiveError], tuple[str, str]]:
        return type(self), (self.message, self.detail)


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


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST = 60  # characters of a value in a message
_MINUTE, _HOUR, _DAY = 60, 3600, 86400  # seconds


def key_path(*segments: object) -> str:
    """The way to a key as it is written in messages: `optuna: sampler: type`."""
    return ": ".join(str(segment) for segment in segments)


def is_of_files(error: OSError) -> bool:
    """Whether the user's files are the reason: rights, a read-only or a full file system."""
    told = (errno.EACCES, errno.EPERM, errno.EROFS, *_DISK_FULL)
    return error.errno in told and isinstance(error.filename, str | bytes | os.PathLike)


def file_problem(error: OSError) -> Problem:
    """What keeps a file from being read or written, and whose it is."""
    path = Path(os.fsdecode(error.filename))
    found = (error.strerror or str(error)).lower()
    if error.errno in _DISK_FULL:
        return Problem(str(path), found, "free space on this file system, or another save_path")
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            owner = place.stat().st_uid
            whose = "you" if owner == os.geteuid() else _user(owner)
            found += f"; {'it' if place == path else place} belongs to {whose}"
            break
    return Problem(str(path), found, "a file or directory that you may read and write")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def did_you_mean(word: object, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate nearest to `word`, upper and lower case alike, or None where nothing is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def show(value: Any) -> str:
    """A value as a person would write it in YAML, cut short where it is long."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    except ValueError:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def listing(words: Iterable[str]) -> str:
    """Legal words, in one line."""
    return ", ".join(words)


def show_duration(seconds: float | None) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d04h`; `-` when it is not known."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "-"
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def show_number(value: float) -> str:
    """Five significant digits, without an exponent where that is shorter."""
    return f"{value:.5g}"


def show_rate(per_second: float | None) -> str:
    """Trials per second, minute, hour or day: the first unit in which it is at least one."""
    if not per_second:
        return "-"
    for unit, length in (("s", 1), ("min", _MINUTE), ("h", _HOUR)):
        if per_second * length >= 1:
            return f"{per_second * length:.3g}/{unit}"
    return f"{per_second * _DAY:.3g}/day"


def shorten(text: str, width: int) -> str:
    """The text in exactly `width` characters, cut with `~` where it is longer."""
    return text.ljust(width) if len(text) <= width else text[: max(0, width - 1)] + "~"[:width]


def storage_kind(url: str) -> str:
    """What kind of storage a URL names, without the URL."""
    scheme = url.partition(":")[0].partition("+")[0]
    kinds = {
        "sqlite": "SQLite",
        "journal": "journal file",
        "mysql": "MySQL",
        "redis": "Redis",
        "rediss": "Redis",
    }
    return "PostgreSQL" if scheme.startswith("postgres") else kinds.get(scheme, scheme)
