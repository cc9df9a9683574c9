"""What is asked of SLURM, as plain data: everything that the batch script says, and nothing else.
From the config to what is asked of SLURM.
"""

from __future__ import annotations

import os
import shlex
import site
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.launch.slurm.options import (
    absolute_log,
    batch_options,
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


@dataclass(frozen=True)
class Python:
    """The interpreter that runs the agent."""

    command: tuple[str, ...]
    """The words of the command, for example `apptainer exec image.sif python`."""
    prefer_activated: bool = False
    """Take the `python` that `kernel:` or `bash:` put on PATH, where it can import aimlhpo."""
    path: str | None = None
    """A directory that PYTHONPATH needs, where aimlhpo runs from its sources."""


@dataclass(frozen=True)
class Submission:
    """One job array of a study: `jobs` elements from index `first`, each one agent on one node."""

    study: str
    save_path: str
    jobs: int
    options: tuple[tuple[str, str | None], ...]
    """sbatch's options by long name, in the order written, repeats included; None: without a value."""
    python: Python
    log: str
    """Where the standard output of each job goes, in SLURM's patterns."""
    bash: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    first: int = 0
    at_once: int | None = None
    """At most so many elements of the array run at the same time."""

    def value(self, option: str) -> str | None:
        """The last value given for `option`, or None."""
        found = [value for name, value in self.options if name == option]
        return found[-1] if found else None

    def part(self, first: int, jobs: int) -> Submission:
        """The same, with other elements."""
        return replace(self, first=first, jobs=jobs)


LEAD = 120
"""Seconds before the time limit at which SLURM signals the agent; less for jobs of under ten minutes."""
_LEAD_SHARE = 0.2
_SHELL_CHARACTERS = set("$`;&|<>(){}*?!\n\r")


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
        options=_options(config, section),
        python=_python(section),
        log=_log(config, section),
        bash=tuple(line for text in section.bash for line in text.splitlines()),
        kernel=tuple((section.kernel or "").splitlines()),
        at_once=jobs_at_once(section.batch),
    )


def check_submission(config: Config, jobs: int) -> list[Problem]:
    """Everything in the config that cannot be submitted."""
    section = config.slurm
    if section is None:
        return []
    found = check_options(section.batch, jobs)
    if jobs < 1:
        found.append(Problem("slurm:jobs", f"{jobs}", "a whole number from 1"))
    return [*found, *_check_names(config), *_check_commands(section)]


def _check_names(config: Config) -> list[Problem]:
    """SLURM reads `%` and `\\` in the names of log files, submitit `%j` in the name of its folder."""
    found, save_path, name = [], str(config.paths.save_path), config.optuna.study_name
    if unprintable(save_path) or set(save_path) & set("%\\"):
        legal = "for jobs on SLURM, a path of printable characters without % and \\"
        found.append(Problem("optuna:save_path", repr(save_path), legal))
    if unprintable(name):
        found.append(Problem("optuna:name", repr(name), "for jobs on SLURM, printable characters"))
    return found


def _check_commands(section: SlurmSection) -> list[Problem]:
    found = []
    for where, text in (("bash", "\n".join(section.bash)), ("kernel", section.kernel or "")):
        if "\0" in text:
            found.append(Problem(f"slurm:{where}", "holds a NUL character", "lines of shell"))
    if section.python is not None and not _is_plain_command(section.python):
        legal = "a path, or words such as `apptainer exec image.sif python`; shell goes to `kernel:`"
        found.append(Problem("slurm:python", f"{section.python!r} is no plain command", legal))
    return found


def _is_plain_command(text: str) -> bool:
    try:
        return bool(shlex.split(text)) and not set(text) & _SHELL_CHARACTERS
    except ValueError:  # a quote is not closed
        return False


def _options(config: Config, section: SlurmSection) -> tuple[tuple[str, str | None], ...]:
    given = dict.fromkeys(section.batch)
    ours = {
        "job-name": config.optuna.study_name,
        "nodes": "1",
        "open-mode": "append",
        "signal": f"B:USR1@{_lead(section)}",
        "output": default_log(config.paths.logs),
        "requeue" if section.requeue else "no-requeue": None,
    }
    if given.keys() & {"requeue", "no-requeue"}:
        ours = {name: value for name, value in ours.items() if not name.endswith("requeue")}
    missing = ((name, value) for name, value in ours.items() if name not in given)
    return (*(_own(name, value) for name, value in batch_options(section.batch)), *missing)


def _own(name: str, value: str | None) -> tuple[str, str | None]:
    """The user's option, made to fit: a file of its own for each job, the signal to the batch shell."""
    if value is None:
        return name, value
    if name in ("output", "error"):
        return name, one_log_per_job(value, "%a")
    if name == "signal" and "B" not in value.partition(":")[0].upper():
        # The agent is the batch shell and starts no steps: without B nobody would get the signal.
        flags, _, signal = value.rpartition(":")
        return name, f"{flags}B:{signal}"
    return name, value


def _lead(section: SlurmSection) -> int:
    limit = seconds_of_time_limit(str(section.batch.get("time")))
    return LEAD if limit is None else max(1, min(LEAD, int(limit * _LEAD_SHARE)))


def _log(config: Config, section: SlurmSection) -> str:
    """The pattern of the jobs' output files, absolute."""
    given = [value for value in option_values(section.batch.get("output")) if value]
    if not given:
        return default_log(config.paths.logs)
    start = Path(next(filter(None, option_values(section.batch.get("chdir"))), "."))
    return absolute_log(one_log_per_job(given[-1], "%a"), Path.cwd() / start)


def _python(section: SlurmSection) -> Python:
    path = _source_checkout()
    if section.python is None:
        return Python((sys.executable,), prefer_activated=bool(section.kernel or section.bash), path=path)
    first, *rest = shlex.split(section.python)
    first = os.path.expanduser(first)
    return Python((os.path.abspath(first) if "/" in first else first, *rest), path=path)


def _source_checkout() -> str | None:
    """The directory to add to PYTHONPATH, or None where aimlhpo is installed like any package."""
    import aimlhpo

    root = Path(aimlhpo.__file__).resolve().parents[1]
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]
    return None if str(root) in {os.path.realpath(path) for path in installed} else str(root)
