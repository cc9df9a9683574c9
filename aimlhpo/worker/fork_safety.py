"""Whether a process that has imported an objective can be forked, or what stands in the way.

A fork copies the forking thread alone, and shares what is open: a lock that another thread held stays locked for ever,
a GPU's context is void, a file's position moves under several readers. So a process is forked only where its imports
have left nothing of the kind.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

_OWN = Path("/proc/self")
_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})  # jemalloc (in pyarrow) starts it anew on both sides of a fork
_SAFE_FILES = ("/dev/null", "/dev/urandom", "/dev/random")


def open_files() -> dict[int, str]:
    """What this process has open, by descriptor."""
    found: dict[int, str] = {}
    for name in os.listdir(_OWN / "fd"):
        with suppress(OSError):  # the one that listed the directory
            found[int(name)] = os.readlink(_OWN / "fd" / name)
    return found


def obstacle(before: dict[int, str]) -> str | None:
    """What the imports have left that a fork would break; `before` is what was open before them."""
    _settle_thread_pools()
    if threads := _threads():
        return f"started threads ({', '.join(sorted(threads))})"
    if files := [file for number, file in open_files().items() if before.get(number) != file and not _is_safe(file)]:
        return f"left open: {', '.join(sorted(files))}"
    if _cuda_is_initialized():
        return "started to use the GPU"
    return "started processes" if _children() else None


def forked() -> int:
    """`os.fork`, without Python's warning of threads: `obstacle` has looked at them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _settle_thread_pools() -> None:
    """Fork once for nothing: OpenBLAS, which starts threads when NumPy is imported, ends them before any fork."""
    child = forked()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _threads() -> set[str]:
    others = [task for task in (_OWN / "task").iterdir() if int(task.name) != os.getpid()]
    return {(task / "comm").read_text().strip() for task in others} - _SAFE_THREADS


def _is_safe(file: str) -> bool:
    return file in _SAFE_FILES or file == f"/proc/{os.getpid()}/fd"


def _cuda_is_initialized() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _children() -> bool:
    with suppress(OSError):  # a kernel without the list
        return bool((_OWN / "task" / str(os.getpid()) / "children").read_text().strip())
    return False
