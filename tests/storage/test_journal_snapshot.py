"""A journal opens from its snapshot to the very same study, and from nothing that is not its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from aimlhpo.storage import journal_snapshot
from aimlhpo.storage.journal_file import JournalLock
from aimlhpo.storage.open import open_storage
from tests.storage.studies import as_text, make_trials


@pytest.fixture(autouse=True)
def _early_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a snapshot whenever a journal with anything new in it is opened."""
    monkeypatch.setattr("aimlhpo.storage.journal.LEAST_TAIL", 0)
    monkeypatch.setattr("aimlhpo.storage.journal.TAIL_SHARE", 0.0)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with a snapshot beside it that covers all of it."""
    path = tmp_path / "s.journal"
    make_trials(plainly(path))
    ours(path)
    assert journal_snapshot.covered_by(path).offset == path.stat().st_size
    return path


def plainly(path: Path) -> JournalStorage:
    """Optuna's own classes, under our lock."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))


def ours(path: Path) -> JournalStorage:
    storage = open_storage(f"journal://{path}")
    assert isinstance(storage, JournalStorage)
    return storage


def read(storage: JournalStorage) -> list[dict[str, str]]:
    return [as_text(trial) for trial in storage.get_all_trials(0, deepcopy=False)]


def from_snapshot(path: Path) -> bool:
    return journal_snapshot.load_snapshot(path) is not None


def test_snapshot_holds_what_the_journal_says(journal: Path) -> None:
    assert from_snapshot(journal)
    assert read(ours(journal)) == read(plainly(journal))
    assert ours(journal).get_all_studies() == plainly(journal).get_all_studies()
    assert journal_snapshot.snapshot_path(journal).stat().st_mode & 0o777 == 0o600


def test_what_came_after_the_snapshot_is_read_from_the_journal(journal: Path) -> None:
    before = journal_snapshot.snapshot_path(journal).read_bytes()
    study = optuna.load_study(study_name="s", storage=plainly(journal))
    study.tell(6, [0.25, 0.5])
    later = study.ask()
    later.suggest_float("x", 1e-3, 1.0, log=True)
    assert from_snapshot(journal)
    storage = ours(journal)
    assert read(storage) == read(plainly(journal))
    assert journal_snapshot.snapshot_path(journal).read_bytes() != before
    storage.set_trial_user_attr(later._trial_id, "by", "us")
    assert plainly(journal).get_trial(later._trial_id).user_attrs == {"by": "us"}


def test_snapshot_of_another_journal_is_not_taken(journal: Path, tmp_path: Path) -> None:
    stale = journal_snapshot.snapshot_path(journal).read_bytes()
    other = tmp_path / "other.journal"
    study = optuna.create_study(study_name="s", storage=plainly(other))
    while other.stat().st_size < journal.stat().st_size:
        study.tell(study.ask(), 7.0)
    os.replace(other, journal)
    journal_snapshot.snapshot_path(journal).write_bytes(stale)
    assert not from_snapshot(journal)
    assert read(ours(journal)) == read(plainly(journal))


def test_snapshot_is_not_taken_after_the_journal_was_cut(journal: Path) -> None:
    records = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(records[:-3]))
    assert not from_snapshot(journal)
    assert read(ours(journal)) == read(plainly(journal))


def test_torn_line_after_the_snapshot_is_mended(journal: Path) -> None:
    whole = read(ours(journal))
    with open(journal, "ab") as file:
        file.write(b'{"op_code":7,"worker_id":"w","trial_id"')
    assert read(ours(journal)) == whole
    study = optuna.load_study(study_name="s", storage=ours(journal))
    assert study.ask().number == len(whole)
    assert len(read(plainly(journal))) == len(whole) + 1


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "pickle", "next format"])
def test_damaged_snapshot_is_ignored(
    journal: Path, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = journal_snapshot.snapshot_path(journal)
    good = path.read_bytes()
    bad = {
        "empty": b"",
        "cut": good[:-5],
        "changed": good[:-8] + b"12345678",
        "pickle": pickle.dumps(Hostile()),
        "next format": good.replace(b'{"format": 1', b'{"format": 2', 1),
    }
    path.write_bytes(bad[damage])
    assert not from_snapshot(journal)
    assert read(ours(journal)) == read(plainly(journal))
    assert not (tmp_path / "pwned").exists()
    assert from_snapshot(journal), "a good one has been written in its place"


def test_snapshot_that_cannot_be_written_is_done_without(journal: Path) -> None:
    journal_snapshot.snapshot_path(journal).unlink()
    journal_snapshot.snapshot_path(journal).mkdir()
    assert read(ours(journal)) == read(plainly(journal))


def test_agents_that_write_at_once_leave_one_good_snapshot(journal: Path) -> None:
    code = """
import sys
from pathlib import Path
from aimlhpo.storage import journal as storage
storage.LEAST_TAIL, storage.TAIL_SHARE = 0, 0.0
from aimlhpo.storage.journal_file import JournalLock
from aimlhpo.storage.open import open_storage
import optuna
study = optuna.load_study(study_name="s", storage=open_storage(f"journal://{sys.argv[1]}"))
for _ in range(20):
    study.tell(study.ask(), [1.0, 2.0])
"""
    writers = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(journal)]) for _ in range(3)]
    assert [process.wait() for process in writers] == [0, 0, 0]
    assert len(read(ours(journal))) == 67
    assert read(ours(journal)) == read(plainly(journal))
    assert not list(journal.parent.glob("*.new"))


def test_small_journals_have_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "small.journal"
    make_trials(plainly(path))
    ours(path)
    assert not journal_snapshot.snapshot_path(path).exists()


def test_trial_from_a_snapshot_goes_on(journal: Path) -> None:
    storage = ours(journal)
    running = storage.get_all_trials(0)[6]
    assert type(running) is FrozenTrial
    storage.set_trial_intermediate_value(running._trial_id, 99, 0.5)
    assert read(ours(journal)) == read(plainly(journal)) == read(storage)


def test_opening_a_journal_again_changes_nothing_in_what_was_opened_before(journal: Path) -> None:
    before = ours(journal)
    (running,) = (trial for trial in before.get_all_trials(0) if not trial.state.is_finished())
    plainly(journal).set_trial_intermediate_value(running._trial_id, 99, 0.5)
    after = ours(journal)
    assert 99 in after._replay_result._trials[running._trial_id].intermediate_values
    assert 99 not in before._replay_result._trials[running._trial_id].intermediate_values
