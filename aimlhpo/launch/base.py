"""The interface that every launcher fulfils, and the registry of launchers.

A launcher starts a study's agents. The local one runs a single agent in the foreground; others submit jobs that each
run one, and can then be asked how these jobs are and told to cancel them.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from aimlhpo.agent.progress import View
from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import ConfigError, Problem

if TYPE_CHECKING:
    from aimlhpo.agent.fork_server import ForkServer
    from aimlhpo.config.schema import Config
    from aimlhpo.results.status import JobStates

LOCAL = "local"
LAUNCHERS = {
    LOCAL: "aimlhpo.launch.local:LocalLauncher",
    "slurm": "aimlhpo.launch.slurm.launcher:SlurmLauncher",
}
"""Each launcher's class, by the section of the hyperparameter file that asks for it; `local` needs no section.

Classes are named, not imported, so that only the launcher that is used is loaded."""

Rows = list[tuple[str, str]]
"""Names and values, to be shown below each other."""


@dataclass(frozen=True)
class LaunchPlan:
    """What would be started: in words, and the text of the batch script where there is one."""

    rows: Rows = field(default_factory=list)
    script: str = ""


@dataclass(frozen=True)
class LaunchReport:
    """How a start went: one sentence, and what the user can do next. Both are empty where the study has run."""

    headline: str = ""
    rows: Rows = field(default_factory=list)


@dataclass(frozen=True)
class LiveJobs:
    """How many jobs of a study have not ended."""

    running: int = 0
    waiting: int = 0

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)

    def __str__(self) -> str:
        return f"{self.running + self.waiting} jobs ({self.running} running, {self.waiting} waiting)"


class Launcher(ABC):
    """Starts the agents of a study. Launchers hold no state, so that any command can make one.

    A launcher that submits jobs also says what a job runs, how the jobs are, and cancels them; the methods for that
    have answers here for those that submit none.
    """

    submits: ClassVar[bool]
    """Whether `start` returns once the jobs are submitted, instead of running the study to its end."""

    @abstractmethod
    def check(self, config: Config) -> Iterable[Problem]:
        """Everything that would keep this launcher from starting the study. Starts and changes nothing."""

    @abstractmethod
    def plan(self, config: Config, count: int | None = None) -> list[LaunchPlan]:
        """What `start` would do with the same arguments, for each section of jobs. Raises ConfigError."""

    @abstractmethod
    def start(
        self, config: Config, view: View, count: int | None = None, fork_server: ForkServer | None = None
    ) -> LaunchReport:
        """Start agents of a study that has been created.

        Args:
            config: the study's checked configuration; where it is about one section of several, that one is started.
            view: shows how the study goes, where it runs in the foreground.
            count: how many workers (in the foreground) or jobs of each section to start; None: as the configuration
                says.
            fork_server: has loaded the objective already, for workers in the foreground.

        Raises:
            ConfigError, DeviceError: what was asked for cannot be started.
            ObjectiveError, StudyFailed, StorageError: the study had to be given up.
            SubmissionError: the jobs were not accepted.
            Interrupted: the user has stopped the study.
        """

    def is_in_job(self) -> bool:
        """Whether this process is in a job of this launcher."""
        return False

    def run_job(self, config: Config, view: View) -> int:
        """Run the agent of this job to its end. Returns the exit code; raises what `start` raises."""
        raise NotImplementedError

    def job_states(self, paths: StudyPaths) -> JobStates | None:
        """Answers how the study's jobs are; None where none were submitted."""
        return None

    def live_jobs(self, config: Config) -> LiveJobs:
        """The study's jobs, or those of the section that `config` is about, that have not ended.

        Raises SubmissionError where that is not known now.
        """
        return LiveJobs()

    def cancel_jobs(self, config: Config) -> LiveJobs:
        """Cancel all jobs of the study, or of the section that `config` is about, and no others.

        Agents that run are told first and give their trials back. Returns the jobs that were there; raises
        SubmissionError with the reason why they were not cancelled.
        """
        return LiveJobs()

    def take_away_jobs(self, config: Config, count: int) -> tuple[int, int]:
        """Have the study go on with so many jobs fewer: jobs that wait first, then agents after their trials.

        Returns how many jobs were cancelled, and how many agents were asked to end; raises SubmissionError.
        """
        return 0, 0


def make_launcher(name: str) -> Launcher:
    """The launcher of that name in `LAUNCHERS`."""
    module, _, class_name = LAUNCHERS[name].partition(":")
    launcher: Launcher = getattr(import_module(module), class_name)()
    return launcher


def launcher_for(config: Config, *, local: bool = False) -> Launcher:
    """The launcher whose section the configuration has; the local one where it has none, or where `local` is set."""
    asked = (name for name in LAUNCHERS if name != LOCAL and getattr(config, name, None) is not None)
    return make_launcher(LOCAL if local else next(asked, LOCAL))


def launcher_of_jobs(paths: StudyPaths) -> Launcher:
    """The launcher that has submitted jobs for the study; the local one where nobody has.

    The configuration is not asked: it may have changed since. Launchers keep a record of what they submit in
    `paths.jobs`, so without a file there none needs to be loaded.
    """
    if paths.jobs.is_dir() and any(paths.jobs.iterdir()):
        for name in LAUNCHERS:
            launcher = make_launcher(name)
            if launcher.job_states(paths) is not None:
                return launcher
    return make_launcher(LOCAL)


def submit_command(save_path: object, section: str | None = None, jobs: int | None = None) -> str:
    """The command that submits so many jobs of a section, as a shell takes it. None: of all, as many as they say."""
    options = (["--section", section] if section is not None else []) + (["--jobs", str(jobs)] if jobs else [])
    return shlex.join(["aimlhpo", "submit", str(save_path), *options])


def run_job(config: Config, view: View) -> int:
    """Run the agent of the job that this process is in. Raises ConfigError outside jobs, and what `start` raises."""
    for name in LAUNCHERS:
        launcher = make_launcher(name)
        if launcher.is_in_job():
            return launcher.run_job(config, view)
    raise ConfigError(Problem("aimlhpo agent", "this is no SLURM job", "jobs run it; `aimlhpo optimize` submits"))
