"""File locks are given in fair order, and shared file systems are told from local ones by the mount table."""

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
from aimlhpo.storage.locks import lock, lock_trouble, locked, mount_of, network, open_lock_file, try_lock
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
    monkeypatch.setattr("aimlhpo.storage.locks._LONGEST_WAIT", 60.0)  # nobody is gone past, however slow
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


def test_one_that_went_past_the_holder_leaves_nothing_locked_that_it_opens_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that waits in its name may come to that only when its descriptor is closed, or another file's."""
    begin, take = Event(), fcntl.flock
    path, later = tmp_path / "ledger.lock", tmp_path / "later"

    def take_late(fd: int, operation: int) -> None:
        if current_thread().name == "fair-lock":
            begin.wait(60)
        take(fd, operation)

    monkeypatch.setattr("aimlhpo.storage.locks._LONGEST_WAIT", 0.1)
    monkeypatch.setattr("fcntl.flock", take_late)
    head = open_lock_file(tmp_path / "ledger.lock.next")
    lock(head, path)
    with locked(path), opened(later), opened(later) as other:
        os.close(head)
        begin.set()
        wait_until(lambda: "fair-lock" not in {thread.name for thread in enumerate_threads()}, "the thread's end")
        assert try_lock(other)


def test_one_that_is_stopped_while_it_waits_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimlhpo.storage.locks._LONGEST_WAIT", 0.1)
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


# --- file systems ---

TABLE = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:40 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/me/fast rw - xfs /dev/sdb1 rw
42 22 0:42 / /scratch rw - lustre mds@tcp:/scratch rw,flock
43 22 0:43 / /with\040space rw - beegfs beegfs_nodev rw
44 22 0:44 / /twice rw - ext4 /dev/sdc rw
45 22 0:45 / /twice rw - gpfs gpfs0 rw"""


def type_of(path: Path) -> str | None:
    mount = mount_of(path, TABLE)
    return mount.type if mount is not None else None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homeless/x", "ext4"),
        ("/home/you/run/s.db", "nfs4"),
        ("/home/me/fast/s.db", "xfs"),
        ("/scratch", "lustre"),
        ("/with space/x", "beegfs"),
        ("/twice/x", "gpfs"),
    ],
)
def test_the_deepest_mount_counts(path: str, kind: str) -> None:
    assert type_of(Path(path)) == kind


def test_network_file_systems_are_named_and_local_ones_are_not() -> None:
    assert network(Path("/home/you"), TABLE) == "nfs4"
    assert network(Path("/home/me/fast/x"), TABLE) is None


def test_links_are_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/scratch/deep")
    assert type_of(link / "s.db") == "lustre"


def test_this_machine_has_a_table(tmp_path: Path) -> None:
    assert mount_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("nfs", "rw,vers=3,nolock", "nolock"),
        ("nfs", "rw,local_lock=flock", "local_lock=flock"),
        ("nfs", "rw,local_lock=posix", None),
        ("lustre", "rw,flock,lazystatfs", None),
        ("lustre", "rw,localflock", "localflock"),
        ("lustre", "rw,noflock", "noflock"),
        ("gpfs", "rw", None),
        ("ext4", "rw,nolock", None),
        ("fuse.sshfs", "rw", "fuse.sshfs"),
    ],
)
def test_options_that_keep_locks_on_their_node(kind: str, options: str, found: str | None) -> None:
    table = f"{TABLE}\nno line of the table\n50 22 0:50 / /shared rw - {kind} server:/shared {options}"
    trouble = lock_trouble(Path("/shared/study"), table)
    assert trouble is None if found is None else found in (trouble or "")
    assert lock_trouble(Path("/elsewhere"), table) is None
