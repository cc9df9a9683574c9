"""Running a peer: its commands at once, to their end or a limit, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_LAST_BYTES = 600
_LOOK = 0.05  # seconds


class PeerFailed(Exception):
    """The peer did not do what it was asked to, or not in time."""


def run(
    commands: Sequence[Sequence[str]],
    environment: dict[str, str],
    log: Path,
    limit: float,
    done: Callable[[Callable[[], list[int]]], bool] = lambda family: False,
) -> None:
    """Run the commands until all have ended, or `done` (which may ask for the processes); then end what is left.

    Raises PeerFailed after `limit` seconds or where a command fails.
    """
    with log.open("wb") as output:
        started = [
            subprocess.Popen(
                command, cwd=log.parent, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            for command in commands
        ]  # fmt: skip
    pids = [process.pid for process in started]
    end = time.monotonic() + limit
    try:
        while any(process.poll() is None for process in started) and not done(lambda: descendants(pids)):
            if time.monotonic() > end:
                raise PeerFailed(f"not ready after {limit:.0f} s: {last_lines(log)}")
            time.sleep(_LOOK)
        failed = [process.returncode for process in started if process.returncode]
        if failed:
            raise PeerFailed(f"exit code {failed[0]}: {last_lines(log)}")
    finally:
        end_all(descendants([process.pid for process in started if process.poll() is None]))
        for process in started:
            process.wait()


def descendants(pids: Sequence[int]) -> list[int]:
    """Those processes and all that came of them."""
    found: list[int] = []
    for pid in pids:
        children: list[int] = []
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                children += map(int, path.read_text().split())
        found += [pid, *descendants(children)]
    return found


def end_all(pids: Sequence[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + 2
        while time.monotonic() < end and any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
            time.sleep(_LOOK)


def memory(pids: Sequence[int]) -> float:
    """MB that the processes take together; what they share counts once."""
    kilobytes = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def last_lines(log: Path) -> str:
    return " / ".join(log.read_bytes()[-_LAST_BYTES:].decode(errors="replace").split("\n")[-4:]).strip(" /")
