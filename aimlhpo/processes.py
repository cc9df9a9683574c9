"""Processes that end with those that started them.

`die_with_parent` keeps a worker from outliving its agent, however the agent ends. The other functions are for a worker
and the processes below it: `adopt_orphans` makes whatever they start stay among the worker's descendants, so that all
of them can be found, signalled and killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl
_PAUSE = 0.01  # seconds between two looks at processes that have been killed
_LONGEST_KILL = 30.0  # seconds; a process in an uninterruptible wait ends later, or never


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the agent, process `parent`, is gone; leave Ctrl-C to the agent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """The ids of all living processes below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:  # grows while it is read
        found += children.get(pid, ())
    return found


def signal_descendants(number: signal.Signals) -> None:
    """Send a signal to all descendants."""
    for pid in descendants():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_descendants() -> None:
    """Kill what is left of the descendants, and wait for their ends. Costs nothing where there are none."""
    deadline = time.monotonic() + _LONGEST_KILL
    while _reap_children() and time.monotonic() < deadline:
        signal_descendants(signal.SIGKILL)
        time.sleep(_PAUSE)


def _reap_children() -> bool:
    """Collect ended children; whether others are left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
