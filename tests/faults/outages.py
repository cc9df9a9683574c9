"""The faults of what a study lies on: a full disk, a database that is away, a journal that was cut."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.scenarios import judge
from tests.faults.verdict import Verdict
from tests.servers import PostgreSQL, find_program


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own, in memory, mounted on `place`. Needs root."""
    place.mkdir(parents=True)
    options = f"size={megabytes}m"
    subprocess.run([find_program("mount"), "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run([find_program("umount"), "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """A file that takes all the room there is."""
    path = place / "everything"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with suppress(OSError):
        for size in (1 << 16, 1 << 10, 1):
            _write_to_the_end(fd, size)
    os.close(fd)
    return path


def _write_to_the_end(fd: int, size: int) -> None:
    while True:
        try:
            os.write(fd, b"x" * size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


def full_disk(folder: Path, kind: str, times: int, seconds: float) -> Verdict:
    """The disk with the storage, the results and the logs is full for a while."""
    with small_disk(folder / "run", 8) as disk:
        url = {"sqlite": f"sqlite:///{disk}/s.db", "journal": f"journal://{disk}/s.journal"}[kind]
        with Crew(folder, 2, 2, storage=url, n_trials=20 * times) as crew:
            crew.hold(20 * times - 4)
            crew.running(4)
            freed = [_full_for(crew, disk, seconds) for _ in range(times)]
            crew.finish()
            return judge(crew, f"disk full for {seconds:g} s", times, freed)


def _full_for(crew: Crew, disk: Path, seconds: float) -> float:
    file = fill(disk)
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # what is freed meanwhile is taken again
        fill(disk)
        time.sleep(0.1)
    file.unlink()
    freed = time.monotonic()
    crew.more(1)
    return freed


def stopped_database(folder: Path, server: PostgreSQL, times: int, seconds: float) -> Verdict:
    """PostgreSQL is stopped in the middle of trials that report, and started again."""
    return _away(folder, server, times, seconds, server.stop, f"PostgreSQL stopped for {seconds:g} s")


def crashed_database(folder: Path, server: PostgreSQL, times: int) -> Verdict:
    """PostgreSQL ends in the middle of trials that report, without a checkpoint, and starts again at once."""
    return _away(folder, server, times, 0, server.crash, "PostgreSQL crashes and is started again")


def _away(
    folder: Path, server: PostgreSQL, times: int, seconds: float, stop: Callable[[], None], fault: str
) -> Verdict:
    back: list[float] = []
    with Crew(folder, 2, 2, storage=server.url(), n_trials=16 * times, seconds=1.0) as crew:
        crew.hold(16 * times - 8)  # twice as many as run at once: nobody looks for a trial in vain
        crew.running(4)
        workers = set(crew.workers)
        for _ in range(times):
            stop()
            time.sleep(seconds)
            back.append(_start(crew, server))
        kept = workers <= set(crew.workers)
        crew.finish()
        failed = sum(trial.state.name == "FAIL" for trial in crew.study.trials)
        note = f"{failed} failed, {'no worker' if kept else 'workers'} died"
        return judge(crew, fault, times, back, note)


def _start(crew: Crew, server: PostgreSQL) -> float:
    """Start the server and wait until trials begin again; when it was back."""
    server.start()
    back = time.monotonic()
    crew.more(2)
    return back


def cut_journal(folder: Path, times: int) -> Verdict:
    """All agents die, the journal loses part of its last record, and new agents go on."""
    path = folder / "s.journal"
    with Crew(folder, 2, 2, storage=f"journal://{path}", n_trials=10 * times) as crew:
        crew.hold(10 * times - 4)
        for _ in range(times):
            crew.more(4)
            crew.kill_all()
            _cut_last_record(path, crew.random.random())
            crew.staff()
        crew.finish()
        return judge(crew, "journal cut in its last record", times)


def _cut_last_record(path: Path, share: float) -> None:
    content = path.read_bytes()
    begin = content.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(content[: begin + int(share * (len(content) - begin))])
