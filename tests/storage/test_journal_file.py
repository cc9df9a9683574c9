"""The journal file survives writers that die in the middle of a line, and the lock survives its holders.

Its lock and those of plain Optuna keep each other out.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

from aimlhpo.storage import journal_file
from aimlhpo.storage.journal_file import JournalLock, repair
from aimlhpo.storage.open import open_storage

HOLD = """
import sys, time
from pathlib import Path
from aimlhpo.storage.journal_file import JournalLock
JournalLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with two finished trials, the last record being that the second one completed."""
    path = tmp_path / "s.journal"
    study = optuna.create_study(study_name="s", storage=open_storage(f"journal://{path}"))
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    return path


def reopen(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=open_storage(f"journal://{path}"))


def test_cut_at_every_byte_of_the_last_record_opens_and_goes_on(journal: Path) -> None:
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last, len(whole) + 1):
        journal.write_bytes(whole[:end])
        study = reopen(journal)
        kept = end >= len(whole) - 1  # all of the record is there, with or without its newline
        assert [trial.value for trial in study.trials] == [1.0, 2.0 if kept else None]
        study.tell(study.ask(), 3.0)
        assert reopen(journal).trials[2].value == 3.0


def test_tail_longer_than_a_read_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"a": 1}\n{"b": "' + b"x" * 200_000)
    repair(path)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_empty_and_whole_journals_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for content in (b"", b'{"a": 1}\n'):
        path.write_bytes(content)
        repair(path)
        assert path.read_bytes() == content


def test_killed_lock_holder_frees_the_lock(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(journal)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # Optuna's own locks are waited for, 30 s here: whoever has to wait for one sleeps.
        monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("the lock is not free"))
        study = reopen(journal)
        study.tell(study.ask(), 3.0)
        assert reopen(journal).trials[2].value == 3.0


def append(path: Path) -> None:
    study = reopen(path)
    study.tell(study.ask(), 3.0)


PLAIN_LOCKS = [JournalFileSymlinkLock, JournalFileOpenLock]


@pytest.mark.parametrize("kind", PLAIN_LOCKS)
def test_plain_optunas_lock_is_waited_for(journal: Path, kind: type[JournalFileSymlinkLock]) -> None:
    plain, before = kind(str(journal)), journal.read_bytes()
    plain.acquire()
    writer = threading.Thread(target=append, args=[journal])
    writer.start()
    writer.join(0.3)
    assert journal.read_bytes() == before
    plain.release()
    writer.join(60)
    assert reopen(journal).trials[2].value == 3.0


@pytest.mark.parametrize("kind", PLAIN_LOCKS)
def test_plain_optuna_waits_for_our_lock(journal: Path, kind: type[JournalFileSymlinkLock]) -> None:
    ours, plain = JournalLock(journal), kind(str(journal))
    ours.acquire()
    waiter = threading.Thread(target=plain.acquire)
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    ours.release()
    waiter.join(10)
    assert not waiter.is_alive()
    plain.release()
    assert not journal.with_name("s.journal.lock").is_symlink()


def test_lock_that_plain_optuna_has_left_is_taken_after_its_grace_period(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    JournalFileSymlinkLock(str(journal)).acquire()
    monkeypatch.setattr(journal_file, "OPTUNAS_GRACE_PERIOD", 0.3)
    append(journal)
    assert reopen(journal).trials[2].value == 3.0


def test_lock_file_of_an_earlier_version_keeps_nobody_waiting(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies beside each journal that such a version has opened; plain Optuna takes it for a lock."""
    journal.with_name("s.journal.lock").touch(0o600)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("the lock is not free"))
    append(journal)
    plain = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="s", storage=plain)
    study.tell(study.ask(), 4.0)
    assert [trial.value for trial in reopen(journal).trials] == [1.0, 2.0, 3.0, 4.0]
