"""The journal file survives writers that die in the middle of a line, and the lock survives its holders."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from aimlhpo.storage.journal_file import repair
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
