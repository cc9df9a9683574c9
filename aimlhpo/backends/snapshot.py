"""A journal's contents up to some byte, beside it in `<journal>.snapshot`, so that opening it takes no replay.

The journal stays the truth: a snapshot that is missing, damaged, of another format, or not of this very journal is
ignored, and the journal is read from its beginning. Plain data only (JSON and numbers): reading one runs nothing.

    line 1   JSON: format, records and bytes of the journal that it covers, a mark of those bytes,
             a digest of what follows
    line 2   JSON: studies, distributions
    lines    JSON: one trial each
    rest     all intermediate values: steps (int64), then values (float64), little-endian, in the order of the trials
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.lazy import LazyTrial
from aimlhpo.backends.replay import Replay, distribution
from aimlhpo.locks import try_lock

FORMAT = 1
_SAMPLES, _SAMPLE = 64, 1024  # pieces of the journal that its mark is made of, and their bytes


@dataclass(frozen=True)
class Covered:
    """How far into a journal a snapshot goes."""

    records: int
    offset: int


@dataclass(frozen=True)
class Contents:
    """A copy of what a replay holds, taken while nothing changes it; trials themselves are never changed."""

    studies: Sequence[FrozenStudy]
    trials: Sequence[FrozenTrial]
    study_ids: Sequence[int]
    next_study_id: int

    @classmethod
    def of(cls, replay: Replay) -> Contents:
        studies = list(replay._studies.values())
        study_ids = [replay._trial_id_to_study_id[trial_id] for trial_id in replay._trials]
        return cls(studies, list(replay._trials.values()), study_ids, replay._next_study_id)

    def put_into(self, replay: Replay) -> None:
        replay._studies = {study._study_id: copy.copy(study) for study in self.studies}
        replay._study_id_to_trial_ids = {study_id: [] for study_id in range(self.next_study_id)}
        replay._next_study_id = self.next_study_id
        for trial, study_id in zip(self.trials, self.study_ids, strict=True):
            trial = trial if trial.state.is_finished() else copy.deepcopy(trial)
            replay._trials[trial._trial_id] = trial
            replay._trial_id_to_study_id[trial._trial_id] = study_id
            replay._study_id_to_trial_ids[study_id].append(trial._trial_id)
            replay.note_new(study_id, trial)


def path_of(journal: Path) -> Path:
    return journal.with_name(journal.name + ".snapshot")


def load(journal: Path) -> tuple[Covered, Contents] | None:
    """The newest snapshot that belongs to the journal as it is now, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UnicodeError):
        with open(path_of(journal), "rb") as file:
            if os.fstat(file.fileno()).st_uid != journal.stat().st_uid:
                return None
            header = _header(file)
            covered = Covered(int(header["records"]), int(header["offset"]))
            if header["mark"] != mark(journal, covered.offset):
                return None
            body = file.read()
        if header["digest"] == blake2b(body).hexdigest():
            return covered, _contents(header["digest"], body)
    return None


def covered_by(journal: Path) -> Covered:
    """How far the snapshot that is there goes; its contents are not looked at."""
    with suppress(OSError, ValueError, KeyError, TypeError), open(path_of(journal), "rb") as file:
        header = _header(file)
        return Covered(int(header["records"]), int(header["offset"]))
    return Covered(0, 0)


def _header(file: BinaryIO) -> dict[str, Any]:
    header = json.loads(file.readline(4096))
    if header["format"] != FORMAT:
        raise ValueError(f"a snapshot of format {header['format']}")
    return dict(header)


def save(journal: Path, covered: Covered, contents: Contents) -> bool:
    """Write the snapshot; False where another process is at it. Raises OSError."""
    temporary = path_of(journal).with_suffix(".snapshot.new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b") as file:
        if not (try_lock(descriptor) and _is_at(descriptor, temporary)):
            return False
        body = b"".join(_body(contents))
        header = {
            "format": FORMAT, "records": covered.records, "offset": covered.offset,
            "mark": mark(journal, covered.offset), "digest": blake2b(body).hexdigest(),
        }  # fmt: skip
        file.truncate(0)
        file.write(json.dumps(header).encode() + b"\n")
        file.write(body)
        file.flush()
        os.replace(temporary, path_of(journal))
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has that name: another writer may have renamed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def mark(journal: Path, offset: int) -> str:
    """Tells a journal by its first `offset` bytes: pieces all over them, the first and the last ones included.

    Every record names its writer and many a time, so that no two journals agree in these. Raises ValueError where the
    journal is shorter.
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


def _body(contents: Contents) -> Iterator[bytes]:
    kinds = _Kinds()
    lines, steps, values = [], [], []
    for trial, study_id in zip(contents.trials, contents.study_ids, strict=True):
        curve = _curve_of(trial)
        steps.append(curve[0])
        values.append(curve[1])
        lines.append(json.dumps(_trial_as_json(trial, study_id, len(curve[0]), kinds), separators=(",", ":")))
    studies = [
        [study._study_id, study.study_name, [int(d) for d in study.directions], study.user_attrs, study.system_attrs]
        for study in contents.studies
    ]
    head = {
        "next_study_id": contents.next_study_id,
        "studies": studies,
        "kinds": list(kinds.numbers),
        "trials": len(lines),
    }
    yield "\n".join([json.dumps(head), *lines, ""]).encode()
    yield np.concatenate([np.empty(0, "<i8"), *steps]).astype("<i8").tobytes()
    yield np.concatenate([np.empty(0, "<f8"), *values]).astype("<f8").tobytes()


class _Kinds:
    """Gives each distribution a number; equal ones the same."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._known: dict[int, tuple[int, BaseDistribution]] = {}

    def number(self, kind: BaseDistribution) -> int:
        if id(kind) not in self._known:
            number = self.numbers.setdefault(distribution_to_json(kind), len(self.numbers))
            self._known[id(kind)] = number, kind
        return self._known[id(kind)][0]


def _trial_as_json(trial: FrozenTrial, study_id: int, reports: int, kinds: _Kinds) -> list[Any]:
    params = {
        name: (kinds.number(kind), kind.to_internal_repr(trial.params[name]))
        for name, kind in trial.distributions.items()
    }
    times = _utc(trial.datetime_start), _utc(trial.datetime_complete)
    attrs = _attrs_of(trial, "_user_attrs"), _attrs_of(trial, "_system_attrs")
    return [study_id, trial.number, int(trial.state), trial._values, *times, params, *attrs, reports]


def _attrs_of(trial: FrozenTrial, name: str) -> Sequence[tuple[str, str]]:
    """(key, JSON text): of a trial that came from a snapshot, as they stood there."""
    unread = trial.unread(name) if isinstance(trial, LazyTrial) else None
    return unread if unread is not None else [(key, json.dumps(value)) for key, value in getattr(trial, name).items()]


def _curve_of(trial: FrozenTrial) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(trial, LazyTrial) and isinstance(trial.curves, _Curves) and not trial.has_curve:
        return trial.curves.of(trial)
    curve = trial.intermediate_values
    return np.fromiter(curve.keys(), "<i8", len(curve)), np.fromiter(curve.values(), "<f8", len(curve))


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


# --- reading ---

_read_last: dict[str, Contents] = {}  # by digest: one command opens the same journal several times


def _contents(digest: str, body: bytes) -> Contents:
    contents = _read_last.get(digest) or _read_body(body)
    _read_last.clear()
    _read_last[digest] = contents
    return contents


def _read_body(body: bytes) -> Contents:
    head_text, _, rest = body.partition(b"\n")
    head = json.loads(head_text)
    *lines, numbers = rest.split(b"\n", head["trials"])
    rows = [json.loads(line) for line in lines]
    kinds = [distribution(text) for text in head["kinds"]]
    curves = _Curves(numbers, [row[-1] for row in rows])
    trials = [_trial_from_json(trial_id, row, kinds, curves) for trial_id, row in enumerate(rows)]
    studies = [
        FrozenStudy(name, None, user, system, study_id, directions=[StudyDirection(d) for d in directions])
        for study_id, name, directions, user, system in head["studies"]
    ]
    return Contents(studies, trials, [row[0] for row in rows], head["next_study_id"])


class _Curves:
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

    def read(self, trial: LazyTrial) -> None:
        steps, values = self.of(trial)
        trial.intermediate_values = dict(zip(steps.tolist(), values.tolist(), strict=True))


def _trial_from_json(trial_id: int, row: Sequence[Any], kinds: Sequence[Any], curves: _Curves) -> FrozenTrial:
    _, number, state, values, start, complete, params, user, system, _ = row
    trial = LazyTrial.of(
        user,
        system,
        curves,
        trial_id=trial_id,
        number=number,
        state=TrialState(state),
        values=values,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params={name: kinds[kind].to_external_repr(value) for name, (kind, value) in params.items()},
        distributions={name: kinds[kind] for name, (kind, _) in params.items()},
    )
    return trial if trial.state.is_finished() else trial.plain()


def _local(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
