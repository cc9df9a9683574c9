"""A journal's contents up to some byte, kept beside it in `<journal>.snapshot`, so that opening it takes no replay.

The journal stays the truth: a snapshot that is missing, damaged, of another format, or not of this very journal is
ignored, and the journal is read from its beginning. It is plain data (JSON and numbers): reading it runs no code.

    line 1   JSON: format, records and bytes of the journal that it covers, a mark of those bytes,
             a digest of what follows
    line 2   JSON: studies, distributions
    lines    JSON: one trial each
    rest     all intermediate values: steps (int64), then values (float64), little-endian, in the order of the trials

Interface: `save_snapshot`, `load_snapshot`, `covered_by`. The thread that opens a journal calls them, and a thread of
its own that saves a snapshot now and then (see `journal`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.journal_file import Position
from aimlhpo.storage.locks import try_lock
from aimlhpo.storage.optuna_internals import FrozenStudy, LazyTrial, shared_distribution

FORMAT = 1
_SAMPLES, _SAMPLE = 64, 1024  # pieces of the journal that its mark is made of, and their bytes


@dataclass(frozen=True)
class SnapshotContents:
    """The studies and trials of a journal; `study_ids` are those of the trials, in their order."""

    studies: Sequence[FrozenStudy]
    trials: Sequence[FrozenTrial]
    study_ids: Sequence[int]
    next_study_id: int


def snapshot_path(journal: Path) -> Path:
    return journal.with_name(journal.name + ".snapshot")


def covered_by(journal: Path) -> Position:
    """How far the snapshot that is there goes; its contents are not looked at."""
    with suppress(OSError, ValueError, KeyError, TypeError), open(snapshot_path(journal), "rb") as file:
        return _read_header(file)[0]
    return Position(0, 0)


def _read_header(file: BinaryIO) -> tuple[Position, dict[str, Any]]:
    """How far the snapshot goes, and everything that its first line says."""
    header = json.loads(file.readline(4096))
    if header["format"] != FORMAT:
        raise ValueError(f"a snapshot of format {header['format']}")
    return Position(int(header["records"]), int(header["offset"])), dict(header)


def content_mark(journal: Path, offset: int) -> str:
    """Identifies a journal by its first `offset` bytes: pieces all over them, the first and the last ones included.

    Every record names its writer and most a time, so that no two journals agree in these pieces. Raises ValueError if
    the journal is shorter.
    """
    found = blake2b(str(offset).encode())
    with open(journal, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < offset:
            raise ValueError("the journal is shorter than its snapshot")
        last = max(0, offset - _SAMPLE)
        for number in range(_SAMPLES):
            file.seek(last * number // (_SAMPLES - 1))
            found.update(file.read(min(_SAMPLE, offset)))
    return found.hexdigest()


# --- writing ---


def save_snapshot(journal: Path, covered: Position, contents: SnapshotContents) -> bool:
    """Write the snapshot; returns False if another process is writing one. Raises OSError."""
    temporary = snapshot_path(journal).with_suffix(".snapshot.new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b") as file:
        if not try_lock(descriptor):
            return False
        try:
            still_there = os.path.samestat(os.fstat(descriptor), temporary.stat())
        except FileNotFoundError:
            still_there = False
        if not still_there:  # another process has renamed the file since it was opened here
            return False
        body = _body(contents)
        header = {
            "format": FORMAT, "records": covered.records, "offset": covered.offset,
            "mark": content_mark(journal, covered.offset), "digest": blake2b(body).hexdigest(),
        }  # fmt: skip
        file.truncate(0)
        file.write(json.dumps(header).encode() + b"\n")
        file.write(body)
        file.flush()
        os.replace(temporary, snapshot_path(journal))
    return True


def _body(contents: SnapshotContents) -> bytes:
    def utc(moment: datetime | None) -> str | None:
        return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")

    numbers: dict[str, int] = {}  # equal distributions have the same
    known: dict[int, tuple[int, BaseDistribution]] = {}  # by id, and kept alive so that ids stay unique

    def number_of(distribution: BaseDistribution) -> int:
        if id(distribution) not in known:
            number = numbers.setdefault(distribution_to_json(distribution), len(numbers))
            known[id(distribution)] = number, distribution
        return known[id(distribution)][0]

    lines, steps, values = [], [np.empty(0, "<i8")], [np.empty(0, "<f8")]
    for trial, study_id in zip(contents.trials, contents.study_ids, strict=True):
        if isinstance(trial, LazyTrial) and isinstance(trial.curves, SnapshotCurves) and not trial.has_curve:
            curve = trial.curves.of(trial)
        else:
            reports = trial.intermediate_values
            curve = np.fromiter(reports.keys(), "<i8", len(reports)), np.fromiter(reports.values(), "<f8", len(reports))
        steps.append(curve[0])
        values.append(curve[1])
        params = {
            name: (number_of(distribution), distribution.to_internal_repr(trial.params[name]))
            for name, distribution in trial.distributions.items()
        }
        row = [
            study_id, trial.number, int(trial.state), trial._values, utc(trial.datetime_start),
            utc(trial.datetime_complete), params, _attrs(trial, "_user_attrs"), _attrs(trial, "_system_attrs"),
            len(curve[0]),
        ]  # fmt: skip
        lines.append(json.dumps(row, separators=(",", ":")))
    studies = [
        [study._study_id, study.study_name, [int(d) for d in study.directions], study.user_attrs, study.system_attrs]
        for study in contents.studies
    ]
    head = {"next_study_id": contents.next_study_id, "studies": studies, "kinds": list(numbers), "trials": len(lines)}
    text = "\n".join([json.dumps(head), *lines, ""]).encode()
    curves = np.concatenate(steps).astype("<i8").tobytes(), np.concatenate(values).astype("<f8").tobytes()
    return b"".join((text, *curves))


def _attrs(trial: FrozenTrial, name: str) -> Sequence[tuple[str, str]]:
    """(key, JSON text); of a trial that came from a snapshot, as they were there."""
    unread = trial.unread(name) if isinstance(trial, LazyTrial) else None
    return [(key, json.dumps(value)) for key, value in getattr(trial, name).items()] if unread is None else unread


# --- reading ---

_last_read: dict[str, SnapshotContents] = {}  # by digest: one command opens the same journal several times


def load_snapshot(journal: Path) -> tuple[Position, SnapshotContents] | None:
    """The newest snapshot that belongs to the journal as it is now, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UnicodeError):
        with open(snapshot_path(journal), "rb") as file:
            if os.fstat(file.fileno()).st_uid != journal.stat().st_uid:
                return None
            covered, header = _read_header(file)
            if header["mark"] != content_mark(journal, covered.offset):
                return None
            body = file.read()
        digest = blake2b(body).hexdigest()
        if header["digest"] == digest:
            contents = _last_read.get(digest) or _contents(body)
            _last_read.clear()
            _last_read[digest] = contents
            return covered, contents
    return None


def _contents(body: bytes) -> SnapshotContents:
    def local(text: str | None) -> datetime | None:
        return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)

    head_text, _, rest = body.partition(b"\n")
    head = json.loads(head_text)
    *lines, numbers = rest.split(b"\n", head["trials"])
    rows = [json.loads(line) for line in lines]
    distributions = [shared_distribution(text) for text in head["kinds"]]
    curves = SnapshotCurves(numbers, [row[-1] for row in rows])
    trials = []
    for trial_id, (_, number, state, values, start, complete, params, user, system, _) in enumerate(rows):
        trial = LazyTrial.of(
            user,
            system,
            curves,
            trial_id=trial_id,
            number=number,
            state=TrialState(state),
            values=values,
            datetime_start=local(start),
            datetime_complete=local(complete),
            params={name: distributions[kind].to_external_repr(value) for name, (kind, value) in params.items()},
            distributions={name: distributions[kind] for name, (kind, _) in params.items()},
        )
        trials.append(trial if trial.state.is_finished() else trial.plain())
    studies = [
        FrozenStudy(name, None, user, system, study_id, directions=[StudyDirection(d) for d in directions])
        for study_id, name, directions, user, system in head["studies"]
    ]
    return SnapshotContents(studies, trials, [row[0] for row in rows], head["next_study_id"])


class SnapshotCurves:
    """The intermediate values of all trials, as numbers: a tenth of the memory that dictionaries take."""

    def __init__(self, numbers: bytes, lengths: Sequence[int]) -> None:
        total = sum(lengths)
        self._steps = np.frombuffer(numbers, "<i8", total)
        self._values = np.frombuffer(numbers, "<f8", total, offset=8 * total)
        self._ends = np.cumsum(lengths).tolist()

    def of(self, trial: FrozenTrial) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values."""
        end = self._ends[trial._trial_id]
        begin = self._ends[trial._trial_id - 1] if trial._trial_id else 0
        return self._steps[begin:end], self._values[begin:end]

    def __call__(self, trial: LazyTrial) -> None:
        steps, values = self.of(trial)
        trial.intermediate_values = dict(zip(steps.tolist(), values.tolist(), strict=True))
