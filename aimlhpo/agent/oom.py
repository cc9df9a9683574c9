"""Whether the kernel has killed for want of memory: what the memory cgroup of this job has counted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

KILLED = "out of memory: killed by the kernel"
"""The cause that is stored with the trial of such a worker."""

_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def kills(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> int:
    """How many processes of this one's cgroup the kernel has killed for want of memory; 0 where it does not say.

    Version 2 counts in memory.events, version 1 in memory.oom_control.
    """
    with suppress(OSError):
        for line in mine.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _count(cgroups / "memory" / path.lstrip("/") / "memory.oom_control")
            if not controllers and (cgroups / "cgroup.controllers").exists():
                return _count(cgroups / path.lstrip("/") / "memory.events")
    return 0


def _count(file: Path) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(words[1]) for words in lines if words[0] == "oom_kill"), 0)
