"""Ends what a worker's programs have started when the worker is gone, however it went.

A killed worker cannot clear up, and a program's children may be in sessions of their own, where no signal to the
worker's process group finds them. The guard waits for the worker's end outside of the worker's group and descendants,
then kills every process that carries the worker's token in its environment.

Run as `python guard.py DESCRIPTOR TOKEN`, with the standard library alone.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress

WORKER_VARIABLE = "AIMLHPO_WORKER"
_PAUSE = 0.02  # seconds between two looks
_PATIENCE = 30.0  # seconds; a process in an uninterruptible wait ends later, or never


def start_guard() -> dict[str, str]:
    """Start a guard over this process; what its programs need in their environment. Raises OSError."""
    token = secrets.token_hex(8)
    theirs, _ = os.pipe()  # the other end stays open: the kernel closes it when this process ends
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(theirs), token],
            pass_fds=[theirs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(theirs)
    return {WORKER_VARIABLE: token}


def _main(descriptor: int, token: str) -> None:
    if os.fork():
        os._exit(0)  # the guard is an orphan: no child of the worker, which ends all of those
    with suppress(OSError):
        os.read(descriptor, 1)
    deadline = time.monotonic() + _PATIENCE
    while (found := _carriers(f"{WORKER_VARIABLE}={token}".encode())) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _carriers(entry: bytes) -> list[int]:
    """The living processes with this entry in their environment."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and entry in _environment(name)]


def _environment(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
