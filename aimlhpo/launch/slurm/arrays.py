"""The record of each job array that was submitted for a study: one JSON file per array."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from aimlhpo.atomic import replace_file
from aimlhpo.paths import StudyPaths


@dataclass(frozen=True)
class Array:
    """One submitted array: elements `first` to `first + count - 1`; `submitted` is in seconds since 1970.

    `stopped`: `aimlhpo stop` has cancelled it.
    """

    array_id: str
    count: int
    first: int = 0
    cluster: str | None = None
    script: str | None = None
    log: str | None = None
    python: str | None = None
    submitted: float = field(default_factory=time.time)
    stopped: bool = False

    @property
    def label(self) -> str:
        """As SLURM writes it: `1234_[0-19]`."""
        last = self.first + self.count - 1
        elements = f"{self.first}" if self.count == 1 else f"[{self.first}-{last}]"
        return f"{self.array_id}_{elements}"


def write(paths: StudyPaths, array: Array) -> None:
    """Keep the record of an array. Raises OSError."""
    replace_file(_path(paths, array.array_id), _text(array), mode=0o600)


def adopt(paths: StudyPaths, array_id: str, count: int = 1, first: int = 0) -> None:
    """Record an array from within one of its jobs, where the submitting command died before it could.

    Raises OSError.
    """
    with suppress(FileExistsError), open(_path(paths, array_id), "x", encoding="utf-8", opener=_private) as file:
        file.write(_text(Array(array_id, count, first)))


def note_stopped(paths: StudyPaths, array_ids: Collection[str], stopped: bool = True) -> None:
    """Say in the records of these arrays whether their user has stopped them. Raises OSError."""
    for array in recorded(paths):
        if array.array_id in array_ids:
            write(paths, replace(array, stopped=stopped))


def is_stopped(paths: StudyPaths, array_id: str) -> bool:
    """Whether the array's user has stopped it."""
    array = _read(_path(paths, array_id))
    return array is not None and array.stopped


def recorded(paths: StudyPaths) -> list[Array]:
    """All arrays of the study, oldest first; files that are no records are left out."""
    found = (_read(path) for path in paths.jobs.glob("*.json"))
    return sorted((array for array in found if array), key=lambda array: (array.submitted, array.array_id))


def _text(array: Array) -> str:
    return json.dumps(asdict(array), indent=2) + "\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _path(paths: StudyPaths, array_id: str) -> Path:
    return paths.jobs / f"{array_id}.json"


def _read(path: Path) -> Array | None:
    try:
        return Array(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # not one of ours
        return None
