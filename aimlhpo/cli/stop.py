"""`aimlhpo stop`: end a study's jobs, and no others."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import UsageError, add_study_argument, make_parser
from aimlhpo.errors import ExitCode, SubmissionError

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.launch.slurm.queue import LivingJobs

_SUMMARY = """\
Cancel the jobs of a study; what they were running is given back, and can go on later.

Only jobs that were submitted for this study are touched."""
_EXAMPLES = """\
aimlhpo stop runs/digits
aimlhpo stop hyperparameters.yml --yes
"""
_PATIENCE = 120.0  # seconds until the jobs must be gone; SLURM's KillWait is 30 s by default
_POLL = 1.0  # seconds


def run(argv: Sequence[str]) -> int:
    parser = make_parser("stop", _SUMMARY, _EXAMPLES)
    add_study_argument(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args(argv)

    from aimlhpo.cli.arguments import load_target
    from aimlhpo.launch.slurm.queue import cancel_jobs, living_jobs

    config = load_target(arguments.study)
    found = living_jobs(config.paths)
    if not found:
        print(f"study {config.optuna.study_name} has no jobs in the queue")
        return ExitCode.NOTHING_TO_DO
    if not (arguments.yes or _agrees(config, found)):
        print("nothing was stopped")
        return ExitCode.DONE
    stopped = cancel_jobs(config.paths)
    print(f"cancelled {_count(stopped)}", flush=True)
    _await_end(config)
    _give_back(config)
    return ExitCode.DONE


def _count(found: LivingJobs) -> str:
    running, waiting = len(found.running), len(found.waiting)
    return f"{running + waiting} jobs ({running} running, {waiting} waiting)"


def _agrees(config: Config, found: LivingJobs) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked; say --yes to stop the jobs")
    answer = input(f"Stop {_count(found)} of study {config.optuna.study_name}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _await_end(config: Config) -> None:
    """Wait until the jobs are gone: their agents give back what they run, and may not be overtaken."""
    deadline = time.monotonic() + _PATIENCE
    while not _are_gone(config):
        if time.monotonic() > deadline:
            raise SubmissionError(
                f"the jobs were cancelled, but are still in the queue after {_PATIENCE:.0f} s: see squeue.\n"
                f"    What they ran is given back once they are gone: aimlhpo status {config.paths.save_path}"
            )
        time.sleep(_POLL)


def _are_gone(config: Config) -> bool:
    """Whether SLURM says so: that it does not answer for a moment is no reason to give up what has begun."""
    from aimlhpo.launch.slurm.queue import living_jobs

    with suppress(SubmissionError):
        return not living_jobs(config.paths)
    return False


def _give_back(config: Config) -> None:
    """Release what agents that were killed have left behind, and say where the study stands."""
    from aimlhpo.launch.slurm.queue import job_states_of
    from aimlhpo.results.status import read_status
    from aimlhpo.storage.study import load_study

    status = read_status(load_study(config), config, job_states_of(config.paths))
    print(f"{status.counts.finished} of {status.n_trials} trials are finished", end="")
    print(f"; the others: aimlhpo submit {config.paths.save_path}" if status.left else "")
