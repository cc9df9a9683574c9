"""From the configuration to what is asked of SLURM: a `Submission` says all that the batch script will say.

Planning has no side effects, so a dry run shows exactly what would be submitted.
"""

from __future__ import annotations

import os
import re
import shlex
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.launch.slurm.options import (
    absolute_log,
    batch_options,
    check_nodes,
    check_options,
    default_log,
    jobs_at_once,
    one_log_per_job,
    option_values,
    unprintable,
)
from aimlhpo.launch.slurm.program import seconds_of_time_limit

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config, SlurmSection

SIGNAL_LEAD = 120
"""Seconds before the time limit at which SLURM signals the agent; less for jobs of under ten minutes."""
_LEAD_SHARE = 0.2  # of the time limit, at most
_SHELL_CHARACTERS = set("$`;&|<>(){}*?!\n\r")
_GRES_GPUS = re.compile(r"(?:gres[:/])?gpu(?::[A-Za-z][^:,=(]*)?(?:[:=](\d+))?(?:\(.*\))?$")


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
