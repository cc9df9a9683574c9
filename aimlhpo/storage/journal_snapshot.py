"""What a journal's records say, applied one by one: Optuna's own rules, with less copying.
A journal's contents up to some byte, beside it in `<journal>.snapshot`, so that opening it takes no replay.

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
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.lazy_trials import LazyTrial
from aimlhpo.storage.locks import try_lock

FINISHED = frozenset(state for state in TrialState if state.is_finished())
_APPLY = {
    operation.value: f"_apply_{operation.name.lower()}"
    for operation in JournalOperation
    if operation is not JournalOperation.DISCARD_TRIALS  # which Optuna ignores, too
}


@dataclass
class Tally:
    """Trials of a study by state, and the ids of those that are not finished."""

    states: Counter[TrialState] = field(default_factory=Counter)
    open: dict[int, None] = field(default_factory=dict)


class JournalReplay(JournalStorageReplayResult):
    """The studies and trials of a journal.

    Attributes:
        loading: nobody else has seen the trials yet, so that reports are put into them without a copy.
    """

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self.loading = True
        self._last_created_trial_id_by_this_process = -1  # read after a trial was appended in a batch, not yet read
        self._endings = 0
        self._tallies: dict[int, Tally] = {}
        self._kinds: dict[tuple[int, str], BaseDistribution] = {}
        self._lists: dict[tuple[int, frozenset[TrialState]], tuple[int, list[FrozenTrial]]] = {}

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        for log in logs:
            self.log_number_read += 1
            name = _APPLY.get(log["op_code"])
            if name is not None:
                getattr(self, name)(log)

    def get_all_trials(self, study_id: int, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """Those in the states; what nobody changes any more is gone through once, not each time."""
        self.get_study(study_id)
        wanted = frozenset(state for state in TrialState if states is None or state in states)
        ended = self._ended(study_id, wanted & FINISHED) if wanted & FINISHED else []
        if wanted <= FINISHED:
            return list(ended)
        opened = (self._trials[trial_id] for trial_id in self.tally(study_id).open)
        return sorted([*ended, *(trial for trial in opened if trial.state in wanted)], key=lambda trial: trial.number)

    def tally(self, study_id: int) -> Tally:
        return self._tallies.setdefault(study_id, Tally())

    def _ended(self, study_id: int, wanted: frozenset[TrialState]) -> list[FrozenTrial]:
        endings, trials = self._lists.get((study_id, wanted), (-1, []))
        if endings != self._endings:
            trials = super().get_all_trials(study_id, wanted)
            self._lists[study_id, wanted] = self._endings, trials
        return trials

    def _apply_delete_study(self, log: dict[str, Any]) -> None:
        super()._apply_delete_study(log)
        self._lists = {}

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        before = len(self._trials)
        super()._apply_create_trial(log)
        if len(self._trials) > before:
            self.note_new(log["study_id"], self._trials[before])

    def _apply_set_trial_state_values(self, log: dict[str, Any]) -> None:
        before = self._trials.get(log["trial_id"])
        super()._apply_set_trial_state_values(log)
        after = self._trials.get(log["trial_id"])
        if before is not None and after is not None and after is not before:
            self._note_state(self._trial_id_to_study_id[log["trial_id"]], before.state, after)

    def _note_state(self, study_id: int, before: TrialState | None, trial: FrozenTrial) -> None:
        tally = self.tally(study_id)
        tally.states[trial.state] += 1
        if before is not None:
            tally.states[before] -= 1
        if trial.state.is_finished():
            tally.open.pop(trial._trial_id, None)
            self._endings += 1
        else:
            tally.open[trial._trial_id] = None

    def note_new(self, study_id: int, trial: FrozenTrial) -> None:
        """Count a trial, and remember the kinds of its parameters."""
        self._note_state(study_id, None, trial)
        self._note_kinds(study_id, trial)

    def _note_kinds(self, study_id: int, trial: FrozenTrial) -> None:
        """Remember which kind of parameter goes under which name: the study's later trials have the same."""
        for name, kind in trial.distributions.items():
            self._kinds.setdefault((study_id, name), kind)

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name, kind = log["trial_id"], log["param_name"], distribution(log["distribution"])
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        try:
            known = self._kinds.setdefault((self._trial_id_to_study_id[trial_id], name), kind)
            check_distribution_compatibility(known, kind)
        except ValueError:
            if self._is_issued_by_this_worker(log):
                raise
            return
        trial = copy.copy(self._trials[trial_id])
        trial.params = {**trial.params, name: kind.to_external_repr(log["param_value_internal"])}
        trial.distributions = {**trial.distributions, name: kind}
        self._trials[trial_id] = trial

    def _apply_set_trial_intermediate_value(self, log: dict[str, Any]) -> None:
        if not self.loading:
            super()._apply_set_trial_intermediate_value(log)
            return
        trial = self._trials.get(log["trial_id"])
        if trial is not None and not trial.state.is_finished():
            trial.intermediate_values[log["step"]] = log["intermediate_value"]


@lru_cache(maxsize=4096)
def distribution(text: str) -> BaseDistribution:
    """The distribution of a JSON text; trials of one study share it."""
    return json_to_distribution(text)


FORMAT = 1
_SAMPLES, _SAMPLE = 64, 1024  # pieces of the journal that its mark is made of, and their bytes


@dataclass(frozen=True)
class CoveredPart:
    """How far into a journal a snapshot goes."""

    records: int
    offset: int


@dataclass(frozen=True)
class SnapshotContents:
    """A copy of what a replay holds, taken while nothing changes it; trials themselves are never changed."""

    studies: Sequence[FrozenStudy]
    trials: Sequence[FrozenTrial]
    study_ids: Sequence[int]
    next_study_id: int

    @classmethod
    def of(cls, replay: JournalReplay) -> SnapshotContents:
        studies = list(replay._studies.values())
        study_ids = [replay._trial_id_to_study_id[trial_id] for trial_id in replay._trials]
        return cls(studies, list(replay._trials.values()), study_ids, replay._next_study_id)

    def put_into(self, replay: JournalReplay) -> None:
        replay._studies = {study._study_id: copy.copy(study) for study in self.studies}
        replay._study_id_to_trial_ids = {study_id: [] for study_id in range(self.next_study_id)}
        replay._next_study_id = self.next_study_id
        for trial, study_id in zip(self.trials, self.study_ids, strict=True):
            trial = trial if trial.state.is_finished() else copy.deepcopy(trial)
            replay._trials[trial._trial_id] = trial
            replay._trial_id_to_study_id[trial._trial_id] = study_id
            replay._study_id_to_trial_ids[study_id].append(trial._trial_id)
            replay.note_new(study_id, trial)


def snapshot_path(journal: Path) -> Path:
    return journal.with_name(journal.name + ".snapshot")


def load_snapshot(journal: Path) -> tuple[CoveredPart, SnapshotContents] | None:
    """The newest snapshot that belongs to the journal as it is now, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UnicodeError):
        with open(snapshot_path(journal), "rb") as file:
            if os.fstat(file.fileno()).st_uid != journal.stat().st_uid:
                return None
            header = _header(file)
            covered = CoveredPart(int(header["records"]), int(header["offset"]))
            if header["mark"] != content_mark(journal, covered.offset):
                return None
            body = file.read()
        if header["digest"] == blake2b(body).hexdigest():
            return covered, _contents(header["digest"], body)
    return None


def covered_by(journal: Path) -> CoveredPart:
    """How far the snapshot that is there goes; its contents are not looked at."""
    with suppress(OSError, ValueError, KeyError, TypeError), open(snapshot_path(journal), "rb") as file:
        header = _header(file)
        return CoveredPart(int(header["records"]), int(header["offset"]))
    return CoveredPart(0, 0)


def _header(file: BinaryIO) -> dict[str, Any]:
    header = json.loads(file.readline(4096))
    if header["format"] != FORMAT:
        raise ValueError(f"a snapshot of format {header['format']}")
    return dict(header)


def save_snapshot(journal: Path, covered: CoveredPart, contents: SnapshotContents) -> bool:
    """Write the snapshot; False where another process is at it. Raises OSError."""
    temporary = snapshot_path(journal).with_suffix(".snapshot.new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b") as file:
        if not (try_lock(descriptor) and _is_at(descriptor, temporary)):
            return False
        body = b"".join(_body(contents))
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


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has that name: another writer may have renamed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def content_mark(journal: Path, offset: int) -> str:
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


def _body(contents: SnapshotContents) -> Iterator[bytes]:
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

_read_last: dict[str, SnapshotContents] = {}  # by digest: one command opens the same journal several times


def _contents(digest: str, body: bytes) -> SnapshotContents:
    contents = _read_last.get(digest) or _read_body(body)
    _read_last.clear()
    _read_last[digest] = contents
    return contents


def _read_body(body: bytes) -> SnapshotContents:
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
    return SnapshotContents(studies, trials, [row[0] for row in rows], head["next_study_id"])


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
