"""Processes on Linux: a child that ends with its parent, and everything that a process has started.

A worker becomes the parent of every orphan below it, so that whatever a program of the user has started stays among
the worker's descendants, where it can be found, signalled and ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import aimlhpo

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_SECONDS = 0.01
_KILL_SECONDS = 30.0  # a process in an uninterruptible wait ends later, or never


def package_environment() -> dict[str, str]:
    """This process's environment, in which a Python child finds this very package, installed or not."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path(aimlhpo.__file__).parent.parent)]))
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, ends; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(wanted: bool = True) -> None:
    """Become the parent of every descendant whose own parent ends; with `wanted` False, leave them to the system."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def descendants() -> list[int]:
    """The ids of all living processes below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent(int(name))) is not None:
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:  # the list grows while it is read
        found += children.get(pid, ())
    return found


def _parent(pid: int) -> int | None:
    """The parent's id; None for a process that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(parent)


def signal_descendants(number: signal.Signals) -> None:
    """Send a signal to all descendants."""
    for pid in descendants():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_descendants() -> None:
    """Kill all descendants that are left and wait for them to end. Costs nothing where there are none."""
    deadline = time.monotonic() + _KILL_SECONDS
    while _has_children() and time.monotonic() < deadline:
        signal_descendants(signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _has_children() -> bool:
    """Collect the children that have ended; whether others are left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
