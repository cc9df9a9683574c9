"""What of sbatch's options a study's jobs can take: one agent on one node, submitted and left alone.
The files that jobs write their output to, in SLURM's patterns (`%A` the array, `%a` the element...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from aimlhpo.errors import Problem
from aimlhpo.launch.slurm.program import parse_signal_option

Value = str | Sequence[str] | None

_REFUSED = {
    "wait": "the command returns once the jobs are submitted; use `--wait` to follow the study to its end",
    "wrap": "what a job runs is the agent; commands of your own go to `bash:`",
    "test-only": "nothing would be submitted; use `--dry-run`, or `aimlhpo check`",
    "help": "this only prints a text",
    "usage": "this only prints a text",
    "version": "this only prints a text",
}
_OURS = {"parsable", "quiet"}
_NODES = re.compile(r"(?:(\d+)-)?(\d+)$")
_ARRAY = re.compile(r"(?:0-(?P<last>\d+))?%(?P<at_once>\d+)$")
_FILE_OPTIONS = ("output", "error")


def option_values(value: Value) -> list[str | None]:
    """The value of one key as a list: a repeated option has several."""
    return [value] if value is None or isinstance(value, str) else list(value)


def batch_options(batch: Mapping[str, Value]) -> Iterator[tuple[str, str | None]]:
    """The options as the script will hold them; those that only change what sbatch prints are left out."""
    for name, value in batch.items():
        if name not in _OURS and name != "array":
            yield from ((name, one) for one in option_values(value))


def jobs_at_once(batch: Mapping[str, Value]) -> int | None:
    """The `%4` of `array: "%4"`: how many elements may run at the same time."""
    match = _ARRAY.match(str(batch.get("array")))
    return int(match["at_once"]) if match else None


def check_options(batch: Mapping[str, Value], jobs: int) -> list[Problem]:
    """Every option that cannot be part of a study's jobs, by name."""
    found = [_problem(name, legal) for name, legal in _REFUSED.items() if name in batch]
    for name, value in batch.items():
        for one in option_values(value):
            found += _unwritable(name, one)
    return [*found, *_array(batch, jobs), *_nodes(batch), *_files(batch), *_signal(batch)]


def unprintable(text: str) -> str | None:
    """The first character that cannot stand in a line of a batch script, or None."""
    return next((char for char in text if not (char.isprintable() or char == "\t")), None)


def _problem(name: str, legal: str, found: str = "cannot be used for the jobs of a study") -> Problem:
    return Problem(f"slurm:batch:{name}", found, legal)


def _unwritable(name: str, value: str | None) -> list[Problem]:
    char = unprintable(name + (value or ""))
    if char is None:
        return []
    return [_problem(name, "one line of printable characters", f"holds the character {char!r}")]


def _array(batch: Mapping[str, Value], jobs: int) -> list[Problem]:
    if "array" not in batch:
        return []
    match = _ARRAY.match(str(batch["array"]))
    if match and int(match["at_once"]) > 0 and (match["last"] is None or int(match["last"]) == jobs - 1):
        return []
    legal = "`%N` to run at most N jobs at the same time; how many jobs there are is said by `slurm: jobs`"
    return [_problem("array", legal, f"{batch['array']!r} does not go with jobs: {jobs}")]


def _nodes(batch: Mapping[str, Value]) -> list[Problem]:
    match = _NODES.match(str(batch.get("nodes")))
    if match is None or int(match[2]) <= 1:
        return []
    legal = "1: a job is one agent on one node; ask for more workers with `slurm: jobs`"
    return [_problem("nodes", legal, f"{batch['nodes']!r} is more than one node per job")]


def _files(batch: Mapping[str, Value]) -> Iterator[Problem]:
    for name in _FILE_OPTIONS:
        for one in option_values(batch.get(name)):
            if one is not None and "\\" in one:
                yield _problem(name, "no backslashes: they switch SLURM's patterns off", repr(one))


def _signal(batch: Mapping[str, Value]) -> Iterator[Problem]:
    for one in option_values(batch.get("signal")):
        if parse_signal_option(one) is None:
            legal = "a signal and seconds, as USR1@300; not TERM or KILL, which mean the end of the job itself"
            yield _problem("signal", legal, f"{one!r} cannot tell the agent that the walltime is near")


_PATTERN = re.compile(r"%(\d*)([A-Za-z%])")
_PER_ELEMENT = frozenset("ajJ")
NOWHERE = frozenset({"none", "/dev/null"})


def log_patterns(name: str) -> set[str]:
    """The letters of the patterns in a file name; `%%`, a percent sign, is none."""
    return {match[2] for match in _PATTERN.finditer(name)} - {"%"}


def literal_log(path: str) -> str:
    """`path` with nothing in it that SLURM would replace."""
    return path.replace("%", "%%")


def one_log_per_job(name: str, marks: str) -> str:
    """`name` as it is if it names each element's own file, else with `marks` before its suffix.

    >>> one_per_job("out/job.log", "%a")
    'out/job_%a.log'
    """
    if name in NOWHERE or log_patterns(name) & _PER_ELEMENT:
        return name
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}_{marks}{path.suffix}"))


def one_log_per_array(name: str) -> str:
    """`name` with the array's id before the element's, where two arrays have elements of the same index."""
    if log_patterns(name) & {"A", "j", "J"}:
        return name
    return _PATTERN.sub(lambda match: f"%A_{match[0]}" if match[2] == "a" else match[0], name)


def default_log(directory: Path) -> str:
    return f"{literal_log(str(log_directory))}/job-%A_%a.log"


def absolute_log(name: str, directory: Path) -> str:
    """Where `name` leads for a job that starts in `directory`."""
    return name if name in NOWHERE or name.startswith("/") else f"{literal_log(str(log_directory))}/{name}"


def log_directory(name: str) -> Path | None:
    """The directory that must be there before the job starts, or None where SLURM's patterns decide it."""
    parent = str(PurePosixPath(name).parent)
    return None if name in NOWHERE or log_patterns(parent) else Path(parent.replace("%%", "%"))


def log_file(name: str, array: str, index: int) -> str | None:
    """The file of one element of an array, or None where the name depends on more than that."""
    known = {"A": array, "a": str(index)}
    if log_patterns(name) - known.keys():
        return None
    return _PATTERN.sub(lambda m: "%" if m[2] == "%" else known[m[2]].zfill(int(m[1] or 0)), name)
