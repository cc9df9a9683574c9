"""Which sbatch options the jobs of a study can take, and where their output goes.

A job is one agent, submitted and left alone, on one node or on as many as its trials take; options that contradict this
are refused by name. Output
files are named in SLURM's patterns: `%A` is the array's id, `%a` the element's index, `%j` the job's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from aimlhpo.errors import Problem
from aimlhpo.launch.slurm.program import parse_signal_option

OptionValue = str | Sequence[str] | None

_REFUSED = {
    "wait": "the command returns once the jobs are submitted; use `--wait` to follow the study to its end",
    "wrap": "what a job runs is the agent; commands of your own go to `bash:`",
    "test-only": "nothing would be submitted; use `--dry-run`, or `aimlhpo check`",
    "help": "this only prints a text",
    "usage": "this only prints a text",
    "version": "this only prints a text",
}
_FOR_SBATCH_ALONE = {"parsable", "quiet"}  # they change what sbatch prints, and we ask it to be parsable
_NODES = re.compile(r"(?:(\d+)-)?(\d+)$")
_ARRAY = re.compile(r"(?:0-(?P<last>\d+))?%(?P<at_once>\d+)$")
_PATTERN = re.compile(r"%(\d*)([A-Za-z%])")
_PER_ELEMENT = frozenset("ajJ")
_NO_FILE = frozenset({"none", "/dev/null"})


def option_values(value: OptionValue) -> list[str | None]:
    """The value of one key as a list: a repeated option has several."""
    return [value] if value is None or isinstance(value, str) else list(value)


def batch_options(batch: Mapping[str, OptionValue]) -> Iterator[tuple[str, str | None]]:
    """The options as the script will hold them, without the array, which the plan adds."""
    for name, value in batch.items():
        if name not in _FOR_SBATCH_ALONE and name != "array":
            yield from ((name, one) for one in option_values(value))


def jobs_at_once(batch: Mapping[str, OptionValue]) -> int | None:
    """The 4 of `array: "%4"`: how many elements may run at the same time."""
    match = _ARRAY.match(str(batch.get("array")))
    return int(match["at_once"]) if match else None


def check_options(batch: Mapping[str, OptionValue], jobs: int) -> Iterator[Problem]:
    """Every option that cannot be part of a study's jobs, by name."""

    def problem(name: str, found: str, legal: str) -> Problem:
        return Problem(f"slurm:batch:{name}", found, legal)

    for name, legal in _REFUSED.items():
        if name in batch:
            yield problem(name, "cannot be used for the jobs of a study", legal)
    for name, value in batch.items():
        for one in option_values(value):
            if (char := unprintable(name + (one or ""))) is not None:
                yield problem(name, f"holds the character {char!r}", "one line of printable characters")
    if "array" in batch and not _limits_array(batch["array"], jobs):
        legal = "`%N` to run at most N jobs at the same time; how many jobs there are is said by `slurm: jobs`"
        yield problem("array", f"{batch['array']!r} does not go with jobs: {jobs}", legal)
    for name in ("output", "error"):
        for one in option_values(batch.get(name)):
            if one is not None and "\\" in one:
                yield problem(name, repr(one), "no backslashes: they switch SLURM's patterns off")
    for one in option_values(batch.get("signal")):
        if parse_signal_option(one) is None:
            legal = "a signal and seconds, as USR1@300; not TERM or KILL, which mean the end of the job itself"
            yield problem("signal", f"{one!r} cannot tell the agent that the walltime is near", legal)


def check_nodes(batch: Mapping[str, OptionValue], nodes_per_worker: int, workers: int | None) -> Iterator[Problem]:
    """Where the nodes of a job do not go with those that each trial takes; `workers` is the number set for a job."""
    where, given = "slurm:batch:nodes", batch.get("nodes")
    match = _NODES.match(str(given))
    if nodes_per_worker == 1:
        if match is not None and int(match[2]) > 1:
            found = f"{given!r} is more than one node per job, and each trial takes one"
            legal = "1, and more `slurm: jobs` for more workers; or `slurm: nodes_per_worker`, if trials take several"
            yield Problem(where, found, legal)
        return
    each = f"each trial takes {nodes_per_worker} nodes (slurm: nodes_per_worker)"
    legal = f"{nodes_per_worker}, or a multiple of it for trials side by side"
    if given is None:
        yield Problem(where, f"is missing, and {each}", legal)
        return
    if match is None or match[1] is not None:
        yield Problem(where, f"{given!r} is not one number of nodes, and {each}", legal)
        return
    nodes = int(match[2])
    if nodes < nodes_per_worker:
        found = f"{nodes_per_worker} nodes for each trial, and a job has {nodes} (batch: nodes)"
        yield Problem("slurm:nodes_per_worker", found, f"at most {nodes}; or more nodes for each job")
        return
    if left := nodes % nodes_per_worker:
        found = f"{nodes} nodes in each job, and {each}: {left} would stay idle"
        yield Problem(where, found, f"a multiple of {nodes_per_worker}, such as {nodes - left}")
    groups = nodes // nodes_per_worker
    if workers is not None and workers % groups:
        found = f"{workers} workers, and a job has {groups} groups of {nodes_per_worker} nodes"
        yield Problem("slurm:workers_per_job", found, f"a multiple of {groups}; or leave it out")
    tasks = _number(batch.get("ntasks"))
    if tasks is not None and tasks < nodes:
        found = f"{tasks}, and SLURM gives a job no more nodes than tasks"
        yield Problem("slurm:batch:ntasks", found, f"{nodes} or more, or `ntasks-per-node` in its place")


def _number(value: OptionValue) -> int | None:
    return int(value) if isinstance(value, str) and value.isdigit() else None


def _limits_array(value: OptionValue, jobs: int) -> bool:
    """Whether the value of `array` says how many elements run at once, and contradicts nothing else."""
    match = _ARRAY.match(str(value))
    return match is not None and int(match["at_once"]) > 0 and int(match["last"] or jobs - 1) == jobs - 1


def unprintable(text: str) -> str | None:
    """The first character that cannot stand in a line of a batch script, or None."""
    return next((char for char in text if not (char.isprintable() or char == "\t")), None)


def default_log(directory: Path) -> str:
    """The output files of jobs that name none."""
    return f"{_without_patterns(directory)}/job-%A_%a.log"


def absolute_log(name: str, directory: Path) -> str:
    """Where `name` leads for a job that starts in `directory`."""
    return name if name in _NO_FILE or name.startswith("/") else f"{_without_patterns(directory)}/{name}"


def one_log_per_job(name: str) -> str:
    """`name` as it is if it gives each element its own file, else with the element's index before its suffix.

    >>> one_log_per_job("out/job.log")
    'out/job_%a.log'
    """
    if name in _NO_FILE or _patterns(name) & _PER_ELEMENT:
        return name
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}_%a{path.suffix}"))


def one_log_per_array(name: str) -> str:
    """`name` with the array's id before the element's, where two arrays have elements of the same index."""
    if _patterns(name) & {"A", "j", "J"}:
        return name
    return _PATTERN.sub(lambda match: f"%A_{match[0]}" if match[2] == "a" else match[0], name)


def log_of_job(name: str, array_id: str, index: int | None, raw_id: str = "") -> str:
    """The log of one job; patterns of what is not known here stay.

    >>> log_of_job("logs/job-%A_%2a.log", "1234", 5)
    'logs/job-1234_05.log'
    """
    known = {"A": array_id, "a": None if index is None else str(index), "j": raw_id, "%": "%"}

    def fill(match: re.Match[str]) -> str:
        value = known.get(match[2])
        return value.rjust(int(match[1] or 0), "0") if value else match[0]

    return _PATTERN.sub(fill, name)


def log_directory(name: str) -> Path | None:
    """The directory that must be there before the job starts, or None where SLURM's patterns decide it."""
    parent = str(PurePosixPath(name).parent)
    return None if name in _NO_FILE or _patterns(parent) else Path(parent.replace("%%", "%"))


def _patterns(name: str) -> set[str]:
    """The letters of the patterns in a file name; `%%`, a percent sign, is none."""
    return {match[2] for match in _PATTERN.finditer(name)} - {"%"}


def _without_patterns(directory: Path) -> str:
    """The directory with nothing in it that SLURM would replace."""
    return str(directory).replace("%", "%%")
