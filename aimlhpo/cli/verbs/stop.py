"""`aimlhpo stop`: end a study's jobs, and no others. `aimlhpo change`: other values for a study that runs."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from aimlhpo.check.settings import check_reading
from aimlhpo.cli.arguments import UsageError
from aimlhpo.cli.loading import about_section
from aimlhpo.cli.verbs.status import describe_way_on
from aimlhpo.config.load import differences, read_again
from aimlhpo.errors import ConfigError, ExitCode, Problem, SubmissionError
from aimlhpo.launch.base import Launcher, launcher_for, launcher_of_jobs, submit_command
from aimlhpo.ledger.changes import BUDGET, ENQUEUED, change_study, current_config, refuse_unchangeable
from aimlhpo.results.status import read_status
from aimlhpo.search.queues import plan_of
from aimlhpo.storage.study import lines_of_new_study, load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_END_TIMEOUT = 120.0  # seconds until the jobs must be gone; SLURM's KillWait is 30 s by default
_POLL = 1.0  # seconds


def run(config: Config, arguments: Namespace) -> int:
    name, launcher = config.optuna.study_name, launcher_of_jobs(config.paths)
    about = replace(config, section=arguments.section)  # its jobs may outlive the section in the file
    is_left_over = about.section_is_gone and launcher.live_jobs(about)
    config = about if is_left_over else about_section(config, arguments)
    found = launcher.live_jobs(config)
    if not found:
        print(f"study {name} has no jobs{_of_section(config)} in the queue")
        return ExitCode.NOTHING_TO_DO
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to be asked; say --yes to stop the jobs")
        which = f"{found}" if arguments.jobs is None else f"{arguments.jobs} of {found}"
        answer = input(f"Stop {which}{_of_section(config)} of study {name}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was stopped")
            return ExitCode.DONE
    if arguments.jobs is not None:
        return _take_away(config, launcher, arguments.jobs)
    print(f"cancelled {launcher.cancel_jobs(config)}{_of_section(config)}", flush=True)
    _await_end(config, launcher)
    # Reading the status releases what agents that were killed have left behind.
    status = read_status(load_study(config), config, launcher.job_states(config.paths))
    print(f"{status.counts.finished} of {status.n_trials} trials are finished", end="")
    again = submit_command(config.paths.save_path, config.section)
    print(f"; the others: {again}" if status.left and not is_left_over else "")
    return ExitCode.DONE


def _of_section(config: Config) -> str:
    """Which jobs are meant, for messages."""
    return f" of section {config.section}" if config.section is not None else ""


def _take_away(config: Config, launcher: Launcher, count: int) -> int:
    """End so many jobs, each after the trials that it is running. Returns the exit code."""
    cancelled, asked = launcher.take_away_jobs(config, count)
    print(f"cancelled {cancelled} jobs that waited; {asked} agents end after the trials that they are running")
    if cancelled + asked < count:
        print(f"the other {count - cancelled - asked} are ending already, or have just begun: see aimlhpo status")
    taken = cancelled + asked
    if taken and config.slurm is not None and config.slurm.keep:
        again = submit_command(config.paths.save_path, config.section, taken)
        print(f"none is submitted in their place; to have as many jobs as before: {again}")
    return ExitCode.DONE


def change(config: Config, arguments: Namespace) -> int:
    """`aimlhpo change`: give keys of the study other values, and say what was changed."""
    study = load_study(config)
    config = current_config(study, config)
    reading = read_again(config, arguments.changes)
    if not reading.problems:
        refuse_unchangeable(config, reading.config, lines_of_new_study(config))
    asked = check_reading(reading)
    values = differences(config, asked)
    if not values:
        print("nothing to do: the study has these values already")
        return ExitCode.NOTHING_TO_DO
    if any(key.startswith("slurm:") for key in values) and (problems := [*launcher_for(asked).check(asked)]):
        raise ConfigError(problems)
    if plan_of(study) is not None:
        _refuse_for_confirmation(config, values)
    made, given_back = change_study(study, asked, values)
    print(f"study {config.optuna.study_name}, changed:")
    for each in made:
        print(f"  {each}")
    if given_back:
        print(f"given back, because the budget is smaller than what ran: trials {', '.join(map(str, given_back))}")
    status = read_status(study, asked, launcher_of_jobs(config.paths).job_states(config.paths))
    if status.agents:
        print(f"{len(status.agents)} agents are at work; each takes this up with its next trial")
    elif status.left:
        print(f"no agent is at work; {status.left} trials are left: {describe_way_on(status)}")
    return ExitCode.DONE


def _refuse_for_confirmation(config: Config, values: Iterable[str]) -> None:
    """Raise ConfigError where keys are to be changed that a confirmation's plan decides."""
    confirm = f"aimlhpo confirm {shlex.quote(str(config.paths.save_path.parent))}"
    found = "cannot be changed: this study is a confirmation, whose trainings are those that were asked for"
    legal = f"`{confirm}` with a larger --top or --seeds, which adds trainings"
    problems = [Problem(key.replace(":", ": "), found, legal) for key in values if key in (BUDGET, ENQUEUED)]
    if problems:
        raise ConfigError(problems)


def _await_end(config: Config, launcher: Launcher) -> None:
    """Wait until the jobs are gone, because their agents give back what they run, and nobody else may do so before."""
    deadline = time.monotonic() + _END_TIMEOUT
    while True:
        with suppress(SubmissionError):  # that SLURM does not answer for a moment is no reason to give up
            if not launcher.live_jobs(config):
                return
        if time.monotonic() > deadline:
            raise SubmissionError(
                f"the jobs were cancelled, but are still in the queue after {_END_TIMEOUT:.0f} s: see squeue.\n"
                f"    What they ran is given back once they are gone: aimlhpo status {config.paths.save_path}"
            )
        time.sleep(_POLL)
