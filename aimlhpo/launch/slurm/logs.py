"""The files that jobs write their output to, in SLURM's patterns (`%A` the array, `%a` the element...)."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_PATTERN = re.compile(r"%(\d*)([A-Za-z%])")
_PER_ELEMENT = frozenset("ajJ")
NOWHERE = frozenset({"none", "/dev/null"})


def patterns(name: str) -> set[str]:
    """The letters of the patterns in a file name; `%%`, a percent sign, is none."""
    return {match[2] for match in _PATTERN.finditer(name)} - {"%"}


def literal(path: str) -> str:
    """`path` with nothing in it that SLURM would replace."""
    return path.replace("%", "%%")


def one_per_job(name: str, marks: str) -> str:
    """`name` as it is if it names each element's own file, else with `marks` before its suffix.

    >>> one_per_job("out/job.log", "%a")
    'out/job_%a.log'
    """
    if name in NOWHERE or patterns(name) & _PER_ELEMENT:
        return name
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}_{marks}{path.suffix}"))


def one_per_array(name: str) -> str:
    """`name` with the array's id before the element's, where two arrays have elements of the same index."""
    if patterns(name) & {"A", "j", "J"}:
        return name
    return _PATTERN.sub(lambda match: f"%A_{match[0]}" if match[2] == "a" else match[0], name)


def default(directory: Path) -> str:
    return f"{literal(str(directory))}/job-%A_%a.log"


def absolute(name: str, directory: Path) -> str:
    """Where `name` leads for a job that starts in `directory`."""
    return name if name in NOWHERE or name.startswith("/") else f"{literal(str(directory))}/{name}"


def directory(name: str) -> Path | None:
    """The directory that must be there before the job starts, or None where SLURM's patterns decide it."""
    parent = str(PurePosixPath(name).parent)
    return None if name in NOWHERE or patterns(parent) else Path(parent.replace("%%", "%"))


def file(name: str, array: str, index: int) -> str | None:
    """The file of one element of an array, or None where the name depends on more than that."""
    known = {"A": array, "a": str(index)}
    if patterns(name) - known.keys():
        return None
    return _PATTERN.sub(lambda m: "%" if m[2] == "%" else known[m[2]].zfill(int(m[1] or 0)), name)
