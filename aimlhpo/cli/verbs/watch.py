"""`aimlhpo watch`: the status of a study, live, until it ends."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from aimlhpo.cli.verbs.status import describe_failed_jobs, describe_rest, describe_way_on, screen
from aimlhpo.errors import ExitCode
from aimlhpo.launch.base import launcher_of_jobs
from aimlhpo.results.status import Status, read_status
from aimlhpo.storage.study import load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_EVERY = 5.0  # seconds between two readings of the status


def run(config: Config, arguments: Namespace) -> int:
    try:
        return follow(config, arguments.every)
    except KeyboardInterrupt:
        print("no longer watching; the study goes on", file=sys.stderr)
        return ExitCode.DONE


def follow(config: Config, every: float = _EVERY) -> int:
    """Show the study until it ends: DONE with its budget reached, STUDY_FAILED where nobody is left to reach it."""
    study = load_study(config)
    with _display(config) as show:
        while True:
            status = read_status(study, config, launcher_of_jobs(config.paths).job_states(config.paths))
            show(status)
            if is_over(status):
                break
            time.sleep(every)
    rest = describe_rest(status)
    if not rest:
        print(f"study {status.study} is finished: aimlhpo results {status.save_path}")
        print(f"ended by {status.ended}")
        return ExitCode.DONE
    for line in describe_failed_jobs(status):
        print(line)
    print(f"nobody works on study {status.study}, and {rest}: {describe_way_on(status)}")
    if status.ended is not None:  # with something left to do
        print(f"ended by {status.ended}; aimlhpo status --failed {status.save_path} lists them")
    return ExitCode.STUDY_FAILED


def is_over(status: Status) -> bool:
    """Whether nobody works on the study now, and no job will."""
    return not status.agents and status.slurm_answers and all(job.ended for job in status.jobs or ())


@contextmanager
def _display(config: Config) -> Iterator[Callable[[Status], None]]:
    """Shows a status: as a picture that is redrawn in a terminal, elsewhere as a line when something has changed."""
    if sys.stdout.isatty():
        with Live(auto_refresh=False) as live:
            yield lambda status: live.update(Text.from_ansi("\n".join(screen(status, config))), refresh=True)
        return
    shown = ""

    def show_line(status: Status) -> None:
        nonlocal shown
        line = summarize_in_line(status)
        if line != shown:
            shown = line
            print(line, flush=True)

    yield show_line


def summarize_in_line(status: Status) -> str:
    """The study in one line."""
    counts = status.counts
    jobs = ", ".join(f"{number} {state.lower()}" for state, number in status.job_states.items())
    line = f"{counts.finished}/{status.n_trials} trials done, {counts.running} running, {counts.failed} failed"
    if not status.slurm_answers:
        return f"{line}; SLURM does not answer"
    return f"{line}; jobs: {jobs}" if jobs else line
