"""From the configuration to what is asked of SLURM: a `Submission` says all that the batch script will say.

Planning has no side effects, so a dry run shows exactly what would be submitted. A job is one agent, submitted and left
alone, on one node or on as many as its trials take; sbatch options that contradict this are refused by name. Output
files are named in SLURM's patterns: `%A` is the array's id, `%a` the element's index, `%j` the job's id.
"""

from __future__ import annotations

import os
import re
import shlex
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from aimlhpo.config.sbatch_options import OptionValue
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.launch.slurm.program import parse_signal_option, seconds_of_time_limit

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config, SlurmSection

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
SIGNAL_LEAD = 120
"""Seconds before the time limit at which SLURM signals the agent; less for jobs of under ten minutes."""
_LEAD_SHARE = 0.2  # of the time limit, at most
_SHELL_CHARACTERS = set("$`;&|<>(){}*?!\n\r")
_GRES_GPUS = re.compile(r"(?:gres[:/])?gpu(?::[A-Za-z][^:,=(]*)?(?:[:=](\d+))?(?:\(.*\))?$")


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


# --- the submission ---


@dataclass(frozen=True)
class AgentPython:
    """The interpreter that runs the agent."""

    command: tuple[str, ...]
    """The words of the command, for example `apptainer exec image.sif python`."""
    prefer_activated: bool = False
    """Take the `python` that `kernel:` or `bash:` put on PATH, where it can import aimlhpo."""
    path: str | None = None
    """The directory that holds aimlhpo, where it runs from its sources."""


@dataclass(frozen=True)
class Submission:
    """One job array of a study: `jobs` elements from index `first`, each with one agent."""

    study: str
    save_path: str
    jobs: int
    options: tuple[tuple[str, str | None], ...]
    """sbatch's options by long name, in the order written, repeats included; None: without a value."""
    python: AgentPython
    log: str
    """Where the standard output of each job goes, in SLURM's patterns."""
    bash: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    stop_on_error: bool = True
    """Whether a line of `bash` or `kernel` that fails ends the job."""
    first: int = 0
    at_once: int | None = None
    """At most so many elements of the array run at the same time."""
    section: str | None = None
    """The section of `slurm` that says all this; None, where there is one alone."""

    def value(self, option: str) -> str | None:
        """The last value given for `option`, or None."""
        found = [value for name, value in self.options if name == option]
        return found[-1] if found else None

    def with_elements(self, first: int, jobs: int) -> Submission:
        """The same, with other elements of the array."""
        return replace(self, first=first, jobs=jobs)

    @property
    def nodes(self) -> int:
        """The nodes of each job."""
        return int(self.value("nodes") or 1)

    @property
    def gpus_per_node(self) -> int | None:
        """The GPUs that a job asks for on each node, as far as its options say; None where they say nothing."""

        def count(text: str | None) -> int | None:
            number = (text or "").rpartition(":")[2]
            return int(number) if number.isdigit() else None

        resources = [match for part in (self.value("gres") or "").split(",") if (match := _GRES_GPUS.match(part))]
        found, total = [count(self.value("gpus-per-node"))], count(self.value("gpus"))
        if total is not None:
            found.append(total // self.nodes)
        if resources:
            found.append(sum(int(match[1] or 1) for match in resources))
        per_task = count(self.value("gpus-per-task"))
        if per_task is not None:
            found.append(per_task * (count(self.value("ntasks")) or self.nodes) // self.nodes)
        return max((number for number in found if number is not None), default=None)


def plan_submission(config: Config, jobs: int | None = None) -> Submission:
    """What to submit for `config`; `jobs` replaces its own number. Raises ConfigError with all problems."""
    section = config.slurm
    if section is None:
        raise ConfigError(Problem("slurm", "this section is missing", "a section with `jobs` and `batch`"))
    count = section.jobs if jobs is None else jobs
    problems = check_submission(config, count)
    if problems:
        raise ConfigError(problems)
    return Submission(
        study=config.optuna.study_name,
        save_path=str(config.paths.save_path),
        jobs=count,
        options=tuple(_options(config, section)),
        python=_python(section),
        log=_log(config, section),
        bash=tuple(line for text in section.bash for line in text.splitlines()),
        kernel=tuple((section.kernel or "").splitlines()),
        stop_on_error=section.stop_on_error,
        at_once=jobs_at_once(section.batch),
        section=config.section,
    )


def check_submission(config: Config, jobs: int) -> list[Problem]:
    """Everything that cannot be submitted in the section that the configuration is about."""
    section = config.slurm
    if section is None:
        return []
    found = _section_problems(section, jobs)
    keys = ":".join(config.keys_of(section))
    found = [replace(each, where=each.where.replace("slurm", keys, 1)) for each in found]
    # SLURM reads `%` and `\` in the names of log files, submitit `%j` in the name of its folder.
    save_path, name = str(config.paths.save_path), config.optuna.study_name
    if unprintable(save_path) or set(save_path) & set("%\\"):
        legal = "for jobs on SLURM, a path of printable characters without % and \\"
        found.append(Problem("optuna:save_path", repr(save_path), legal))
    if unprintable(name):
        found.append(Problem("optuna:name", repr(name), "for jobs on SLURM, printable characters"))
    return found


def _section_problems(section: SlurmSection, jobs: int) -> list[Problem]:
    found = [*check_options(section.batch, jobs)]
    found += check_nodes(section.batch, section.nodes_per_worker, section.workers_per_job)
    if section.keep and "array" in section.batch:
        what = "does not go with `array`: each array that is submitted would have a limit of its own"
        found.append(Problem("slurm:keep", what, "`jobs` for the number of jobs at the same time, and no `array`"))
    if jobs < 1:
        found.append(Problem("slurm:jobs", f"{jobs}", "a whole number from 1"))
    for where, text in (("bash", "\n".join(section.bash)), ("kernel", section.kernel or "")):
        if "\0" in text:
            found.append(Problem(f"slurm:{where}", "holds a NUL character", "lines of shell"))
    if section.python is not None:
        try:
            is_plain = bool(shlex.split(section.python)) and not set(section.python) & _SHELL_CHARACTERS
        except ValueError:  # a quote is not closed
            is_plain = False
        if not is_plain:
            legal = "a path, or words such as `apptainer exec image.sif python`; shell goes to `kernel:`"
            found.append(Problem("slurm:python", f"{section.python!r} is no plain command", legal))
    return found


def _options(config: Config, section: SlurmSection) -> Iterator[tuple[str, str | None]]:
    """The user's options, changed where the jobs need it, and the launcher's for all that is not said."""
    for name, value in batch_options(section.batch):
        if value is not None and name in ("output", "error"):
            yield name, one_log_per_job(value)
        elif value is not None and name == "signal" and "B" not in value.partition(":")[0].upper():
            # The agent is the batch shell and starts no steps: without B nobody would get the signal.
            flags, _, signal = value.rpartition(":")
            yield name, f"{flags}B:{signal}"
        else:
            yield name, value
    limit = seconds_of_time_limit(str(section.batch.get("time")))
    lead = SIGNAL_LEAD if limit is None else max(1, min(SIGNAL_LEAD, int(limit * _LEAD_SHARE)))
    defaults: dict[str, str | None] = {
        "job-name": config.optuna.study_name,
        "nodes": "1",
        "open-mode": "append",
        "signal": f"B:USR1@{lead}",
        "output": default_log(config.paths.logs),
    }
    if not section.batch.keys() & {"requeue", "no-requeue"}:
        defaults["requeue" if section.requeue else "no-requeue"] = None
    yield from ((name, value) for name, value in defaults.items() if name not in section.batch)


def _log(config: Config, section: SlurmSection) -> str:
    """The pattern of the jobs' output files, absolute."""
    given = [value for value in option_values(section.batch.get("output")) if value]
    if not given:
        return default_log(config.paths.logs)
    start = Path(next(filter(None, option_values(section.batch.get("chdir"))), "."))
    return absolute_log(one_log_per_job(given[-1]), Path.cwd() / start)


def _python(section: SlurmSection) -> AgentPython:
    root = Path(__file__).resolve().parents[3]  # where the package lies
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]
    path = None if str(root) in {os.path.realpath(path) for path in installed} else str(root)
    if section.python is None:
        return AgentPython((sys.executable,), prefer_activated=bool(section.kernel or section.bash), path=path)
    first, *rest = shlex.split(section.python)
    first = os.path.expanduser(first)
    return AgentPython((os.path.abspath(first) if "/" in first else first, *rest), path=path)
