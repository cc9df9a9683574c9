"""TensorBoard: a directory of event files for each trial, with its scalars and a row of the hparams table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.tracking.run import Run, StudyEntry, StudyState, Target

if TYPE_CHECKING:
    from aimlhpo.config.schema import TensorboardSection


@dataclass
class _Written:
    """What is in a trial's event files: tags with their steps; and the file that this process appends to."""

    points: set[tuple[str, int]] = field(default_factory=set)
    file: Path | None = None

    def append(self, folder: Path, records: Callable[[bool], bytes]) -> None:
        """Write records at the end of this process's own file: all of them or, on a full disk, none.

        `records` makes them, and is told whether they are the file's first.
        """
        if self.file is None:
            folder.mkdir(exist_ok=True)
            self.file = folder / f"events.out.tfevents.{time.time():.6f}.{os.uname().nodename}.{os.getpid()}"
        with open(self.file, "ab", buffering=0) as file:
            begin = file.tell()
            data = records(begin == 0)
            try:
                if file.write(data) != len(data):
                    raise OSError(f"{self.file}: no space left")
            except OSError:
                file.truncate(begin)
                raise


class TensorboardTarget(Target):
    """Writes each trial to a directory of its own under `directory`; `reported` is the tag of its reports."""

    package = "tensorboard"

    def __init__(self, directory: Path, reported: str) -> None:
        self.name = f"tensorboard {directory}"
        self._directory, self._reported = directory, reported
        self._written: dict[int, _Written] = {}

    @classmethod
    def make(cls, section: TensorboardSection, study: StudyEntry, reported: str) -> TensorboardTarget:
        return cls(Path(section.directory), reported)

    def load(self) -> None:
        self._events: Any = import_module("aimlhpo.tracking.tensorboard_events")  # loads tensorboard

    def open(self) -> None:
        self.load()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._written.clear()

    def send(self, run: Run) -> None:
        folder = self._directory / f"trial-{run.number:05d}"
        if run.number not in self._written:
            self._written[run.number] = _Written(set(self._events.read_points(folder)))
        known = self._written[run.number]
        values = self._events.values_of_run(run, self._reported)
        new = {point: value for point, value in values.items() if point not in known.points}
        if new:
            known.append(folder, partial(self._events.records_of_values, run, new))
            known.points.update(new)

    def conclude(self, state: StudyState) -> None:
        """Nothing: TensorBoard knows no studies."""
