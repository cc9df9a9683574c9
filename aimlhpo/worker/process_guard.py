"""A process that ends whatever a worker's programs have started when the worker is gone, however it ended.

A killed worker cannot clean up, and a program's children may be in sessions of their own, where no signal to the
worker's process group reaches them. The guard is outside of the worker's group, and outside of its
descendants unless the worker adopts orphans before. It waits for the worker's end, then kills every process that has
the worker's token in its environment.

It runs as `python process_guard.py DESCRIPTOR TOKEN`, with the standard library alone.
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
_POLL_SECONDS = 0.02
_KILL_SECONDS = 30.0  # a process in an uninterruptible wait ends later, or never


def start_guard() -> dict[str, str]:
    """Start a guard over this process.

    Returns what its programs need in their environment. Raises OSError or subprocess.CalledProcessError.
    """
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


def guard(descriptor: int, token: str) -> None:
    """The guard's own program: `descriptor` can be read when the worker is gone."""
    if os.fork():
        os._exit(0)  # the guard is an orphan: no child of a worker that does not adopt it
    with suppress(OSError):
        os.read(descriptor, 1)
    entry = f"{WORKER_VARIABLE}={token}".encode()
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and entry in _environment(name)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _environment(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2])
