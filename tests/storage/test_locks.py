"""The ledger's lock is given in turn."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, current_thread
from threading import enumerate as enumerate_threads

import pytest

from aimlhpo.errors import StorageError
from aimlhpo.storage.locks import lock, locked, open_lock_file, try_lock
from tests.waiting import wait_until


def is_waited_for(path: Path) -> bool:
    """Whether somebody waits for a lock on the file, by the kernel's list."""
    inode = path.stat().st_ino
    return any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = open_lock_file(path)
    yield fd
    os.close(fd)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StorageError, match="has no file locks"), locked(tmp_path / "ledger.lock"):
        pass


def test_who_frees_the_lock_does_not_have_it_again_before_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimlhpo.storage.locks._PATIENCE", 60.0)  # nobody is gone past, however slow
    path, order = tmp_path / "ledger.lock", list[str]()

    def take(who: str) -> None:
        with locked(path):
            order.append(who)

    for _ in range(20):
        other = Thread(target=take, args=("other",))
        with locked(path):
            other.start()
            wait_until(lambda: is_waited_for(path), "the other one to wait")
        take("again")
        other.join()
    assert order == ["other", "again"] * 20


def test_one_that_went_past_the_line_leaves_nothing_locked_that_it_opens_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that waits in its name may come to that only when its descriptor is closed, or another file's."""
    begin, take = Event(), fcntl.flock
    path, later = tmp_path / "ledger.lock", tmp_path / "later"

    def take_late(fd: int, operation: int) -> None:
        if current_thread().name == "line":
            begin.wait(60)
        take(fd, operation)

    monkeypatch.setattr("aimlhpo.storage.locks._PATIENCE", 0.1)
    monkeypatch.setattr("fcntl.flock", take_late)
    head = open_lock_file(tmp_path / "ledger.lock.next")
    lock(head, path)
    with locked(path), opened(later), opened(later) as other:
        os.close(head)
        begin.set()
        wait_until(lambda: "line" not in {thread.name for thread in enumerate_threads()}, "the thread's end")
        assert try_lock(other)


def test_one_that_is_stopped_while_it_waits_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimlhpo.storage.locks._PATIENCE", 0.1)
    path = tmp_path / "ledger.lock"
    code = (
        "import sys; from pathlib import Path; from aimlhpo.storage.locks import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    with locked(path):
        waiting = subprocess.Popen([sys.executable, "-c", code, str(path)])
        wait_until(lambda: is_waited_for(path), "the other process to wait")
        waiting.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(waiting.pid) == "T", "it to stop")
    for _ in range(3):
        with locked(path):
            assert waiting.poll() is None
    waiting.send_signal(signal.SIGCONT)
    assert waiting.wait(60) == 0
    with locked(path):
        pass
