"""`aimlhpo watch`: the status of a study, live, until it ends."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import UsageError, add_study_argument, make_parser
from aimlhpo.cli.status import rest, screen
from aimlhpo.errors import ExitCode

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.results.status import Status

EVERY = 5.0  # seconds between two looks
_SUMMARY = """\
Follow a study until its budget is reached or nobody works on it any more.

Ctrl-C ends the watching; the jobs go on."""
_EXAMPLES = """\
aimlhpo watch runs/digits
aimlhpo watch hyperparameters.yml --every 30
"""


def run(argv: Sequence[str]) -> int:
    parser = make_parser("watch", _SUMMARY, _EXAMPLES)
    add_study_argument(parser)
    parser.add_argument("--every", metavar="SECONDS", default=str(EVERY), help="time between two looks (default: 5)")
    arguments = parser.parse_args(argv)
    every = _seconds(arguments.every)

    from aimlhpo.cli.arguments import load_target

    config = load_target(arguments.study)
    try:
        return follow(config, every)
    except KeyboardInterrupt:
        print("no longer watching; the study goes on", file=sys.stderr)
        return ExitCode.DONE


def follow(config: Config, every: float = EVERY) -> int:
    """Show the study until it ends: DONE with its budget reached, STUDY_FAILED where nobody is left to reach it."""
    from aimlhpo.launch.slurm.queue import job_states_of
    from aimlhpo.results.status import read_status
    from aimlhpo.storage.study import load_study

    study = load_study(config)
    with _display() as show:
        while True:
            status = read_status(study, config, job_states_of(config.paths))
            show(status)
            if is_over(status):
                break
            time.sleep(every)
    left = rest(status)
    if not left:
        print(f"study {status.study} is finished: aimlhpo results {status.save_path}")
        print(f"ended by {status.ended}")
        return ExitCode.DONE
    again = "start it again with reload: 1" if status.given_up else f"aimlhpo submit {status.save_path}"
    print(f"nobody works on study {status.study}, and {left}: {again}")
    return ExitCode.STUDY_FAILED


def is_over(status: Status) -> bool:
    """Whether nobody works on the study now, and no job will."""
    from aimlhpo.launch.slurm.queue import ENDED_STATES

    if status.agents or not status.slurm_answers:
        return False
    return all(job.state in ENDED_STATES for job in status.jobs or ())


@contextmanager
def _display() -> Iterator[Callable[[Status], None]]:
    """A picture that is redrawn in a terminal; elsewhere one line when something has changed."""
    if not sys.stdout.isatty():
        yield _Lines().show
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        yield lambda status: live.update(Text.from_ansi("\n".join(screen(status))), refresh=True)


class _Lines:
    """One line for each change."""

    def __init__(self) -> None:
        self._told = ""

    def show(self, status: Status) -> None:
        line = summary(status)
        if line != self._told:
            self._told = line
            print(line, flush=True)


def summary(status: Status) -> str:
    """The study in one line."""
    counts = status.counts
    jobs = ", ".join(f"{number} {state.lower()}" for state, number in status.job_states.items())
    line = f"{counts.finished}/{status.n_trials} trials done, {counts.running} running, {counts.failed} failed"
    if not status.slurm_answers:
        return f"{line}; SLURM does not answer"
    return f"{line}; jobs: {jobs}" if jobs else line


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--every: {text!r} is not a length of time; legal: seconds, more than 0")
    return value
