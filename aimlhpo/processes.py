"""The package's own processes: how they are started, and that they end with those that started them.

`module_command` is what runs in them. `die_with_parent` keeps a worker from outliving its agent, however the agent
ends. The other functions are for a worker and the processes below it: `adopt_orphans` makes whatever they start stay
among the worker's descendants, so that all of them can be found, signalled and killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
"""The environment variables by which numerical libraries are told how many threads to use."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_SECONDS = 0.01
_KILL_SECONDS = 30.0  # a process in an uninterruptible wait ends later, or never


def module_command(module: str, *arguments: int | str) -> list[str]:
    """The command that runs one of this package's modules as `python -m` does, with this Python.

    What it prints is not buffered.
    """
    code = run_module_code(Path(__file__).parent.parent)
    return [sys.executable, "-u", "-P", "-c", code, module, *map(str, arguments)]


def run_module_code(directory: Path | str) -> str:
    """Python code that runs the module named by its first argument, with the package `aimlhpo` of that directory.

    The package need not be installed, and the environment is left alone: with a PYTHONPATH, programs that user code
    starts would find what lies beside the package, although they may run in another Python with packages of their own.
    """
    return (
        f"import runpy, sys; sys.path.insert(0, {json.dumps(str(directory), ensure_ascii=False)}); import aimlhpo; "
        'sys.path.append(sys.path.pop(0)); runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'
    )


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, ends; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(wanted: bool = True) -> None:
    """Become the parent of every descendant whose own parent ends; with `wanted` False, leave them to the system."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def children(*, ended: bool = False) -> frozenset[int]:
    """The ids of this process's living children; with `ended`, also of those that nobody has waited for yet."""
    return frozenset(_children(ended).get(os.getpid(), ()))


def descendants(spared: Collection[int] = ()) -> list[int]:
    """The ids of all living processes below this one, without the children in `spared` and all below these."""
    by_parent = _children(ended=False)
    found = [pid for pid in by_parent.get(os.getpid(), ()) if pid not in spared]
    for pid in found:  # the list grows while it is read
        found += by_parent.get(pid, ())
    return found


def _children(ended: bool) -> dict[int, list[int]]:
    """The children of all processes."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if ended or state not in (b"Z", b"X"):
            found.setdefault(int(parent), []).append(int(name))
    return found


def signal_descendants(number: signal.Signals, spared: Collection[int] = ()) -> None:
    """Send a signal to all descendants, without the children in `spared` and all below these."""
    for pid in descendants(spared):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_descendants(spared: Collection[int] = ()) -> None:
    """Kill all descendants that are left and wait for them to end. Costs nothing where there are none.

    The children in `spared` are left alone, with all below them, and nobody here waits for them.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while _has_children(spared) and time.monotonic() < deadline:
        signal_descendants(signal.SIGKILL, spared)
        time.sleep(_POLL_SECONDS)


def _has_children(spared: Collection[int]) -> bool:
    """Collect the children that have ended; whether others are left."""
    if spared:
        left = False
        for pid in children(ended=True) - set(spared):
            with suppress(ChildProcessError):
                left = os.waitpid(pid, os.WNOHANG)[0] == 0 or left
        return left
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
