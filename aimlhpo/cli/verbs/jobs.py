"""The jobs of a study that is under way: `aimlhpo submit` adds some, `aimlhpo stop` ends them and no others, `aimlhpo
change` gives the study other values while they run, and `aimlhpo agent` is what each of them runs.
"""

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
from aimlhpo.cli.live_view import make_view
from aimlhpo.cli.loading import about_section
from aimlhpo.cli.messages import print_nothing_to_do, print_rows
from aimlhpo.cli.verbs.status import describe_way_on, follow
from aimlhpo.config.load import differences, read_again
from aimlhpo.errors import ConfigError, ExitCode, Problem, SubmissionError
from aimlhpo.launch.base import Launcher, launcher_for, launcher_of_jobs, run_job, submit_command
from aimlhpo.ledger.changes import BUDGET, ENQUEUED, change_study, current_config, refuse_unchangeable
from aimlhpo.results.status import read_status
from aimlhpo.search.queues import plan_of
from aimlhpo.search.stopping import ended_already
from aimlhpo.storage.study import lines_of_new_study, load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_END_TIMEOUT = 120.0  # seconds until the jobs must be gone; SLURM's KillWait is 30 s by default
_POLL = 1.0  # seconds


def run_submit(config: Config, arguments: Namespace) -> int:
    config = about_section(config, arguments)
    launcher = launcher_for(config)
    if arguments.dry_run:
        print_plan(config, launcher, arguments.jobs)
        return ExitCode.DONE
    ended = ended_already(load_study(config), config)
    if ended:
        print_nothing_to_do(config, ended)
        return ExitCode.NOTHING_TO_DO
    return submit_jobs(config, launcher, arguments.jobs, wait=arguments.wait)


def run_agent(config: Config, arguments: Namespace) -> int:
    """The agent of this job, to its end."""
    about = replace(config, section=arguments.section)
    if about.section_is_gone:
        first = next((f"section {each.name}" for each in config.sections if each.name), "slurm")
        print(f"the study has no section {arguments.section} any more; this job goes by the settings of {first}")
    else:
        about = config.in_section(arguments.section)
    return run_job(about, make_view(config))


def print_plan(config: Config, launcher: Launcher, jobs: int | None = None) -> None:
    """What would be submitted for each section: in words, then the script. Raises ConfigError."""
    _require_jobs(launcher)
    for number, plan in enumerate(launcher.plan(config, jobs)):
        if number:
            print()
        print_rows(plan.rows)
        print(f"\n{plan.script}", end="")


def submit_jobs(config: Config, launcher: Launcher, jobs: int | None = None, *, wait: bool = False) -> int:
    """Submit the jobs and say how to go on; with `wait`, follow the study to its end. Returns the exit code."""
    _require_jobs(launcher)
    report = launcher.start(config, make_view(config), jobs)
    print(report.headline)
    print_rows(report.rows)
    return follow(config) if wait else ExitCode.DONE


def _require_jobs(launcher: Launcher) -> None:
    if not launcher.submits:
        raise ConfigError(Problem("slurm", "this section is missing", "a section with `jobs` and `batch`"))


def run_stop(config: Config, arguments: Namespace) -> int:
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


def run_change(config: Config, arguments: Namespace) -> int:
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
