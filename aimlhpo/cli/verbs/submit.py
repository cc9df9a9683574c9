"""`aimlhpo submit`: more jobs for a study that is under way. `aimlhpo agent` is what each of these jobs runs."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from aimlhpo.cli.live_view import make_view
from aimlhpo.cli.loading import about_section
from aimlhpo.cli.messages import print_nothing_to_do, print_rows
from aimlhpo.cli.verbs.status import follow
from aimlhpo.errors import ConfigError, ExitCode, Problem
from aimlhpo.launch.base import Launcher, launcher_for, run_job
from aimlhpo.search.stopping import ended_already
from aimlhpo.storage.study import load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


def run(config: Config, arguments: Namespace) -> int:
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
