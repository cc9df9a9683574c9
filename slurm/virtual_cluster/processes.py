"""Finding and ending processes by what /proc says of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# In the environment of every daemon, and so of every step: the cluster's directory.
MARKER = "AIMLHPO_VIRTUAL_CLUSTER"
# Likewise: the daemon's name, which is how the steps of one node are known.
DAEMON = "AIMLHPO_VIRTUAL_DAEMON"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def identity(pid: int) -> str | None:
    """A text that no later process with the same id shares; None where there is no such living process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{pid} {fields[19]}"


def marked(root: Path) -> set[int]:
    """The processes that carry this cluster's mark, and all that descend from them; never the caller."""
    mark = f"{MARKER}={root}".encode()
    found = {pid for pid in _all() if mark in environment(pid)}
    return descendants(found) - {os.getpid()}


def descendants(roots: Iterable[int]) -> set[int]:
    """The given processes and everything below them, without zombies."""
    children: dict[int, list[int]] = {}
    for pid in _all():
        children.setdefault(parent(pid), []).append(pid)
    found, queue = set(), list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return {pid for pid in found if identity(pid) is not None}


def kill(find: Callable[[], set[int]], timeout: float = 20.0) -> set[int]:
    """SIGKILL what `find` finds until it finds nothing; returns what would not die in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    found = find()
    while found and time.monotonic() < deadline:
        for pid in _stop(find, found):
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
        found = find()
    return found


def _stop(find: Callable[[], set[int]], found: set[int]) -> set[int]:
    """SIGSTOP first: what is stopped starts nothing while the rest is being looked for."""
    stopped: set[int] = set()
    while found - stopped:
        for pid in found - stopped:
            send(pid, signal.SIGSTOP)
        stopped |= found
        found = find()
    return stopped


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_exit(pid: int, timeout: float) -> bool:
    """True when the process ended within `timeout` seconds; it need not be a child."""
    start, deadline = identity(pid), time.monotonic() + timeout
    while start is not None and identity(pid) == start:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """`NAME=value` entries that the process was started with; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # gone, or another user's


def name(pid: int) -> str:
    """The process's short name; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The process that it is a child of; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
