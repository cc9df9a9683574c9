"""`aimlhpo status`: how a study stands. `aimlhpo watch`: the same, live, until it ends."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from aimlhpo.cli.messages import bold, dim, print_json
from aimlhpo.cli.verbs.results import show_best
from aimlhpo.errors import ExitCode, show_duration, show_number, show_rate
from aimlhpo.launch.base import launcher_of_jobs
from aimlhpo.results.status import FailedTrial, Status, read_status
from aimlhpo.search.queues import FOLDER
from aimlhpo.storage.study import load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_EVERY = 5.0  # seconds between two readings of the status
_LAST_FAILURES = 3
_LAST_CHANGES = 5


def run_status(config: Config, arguments: Namespace) -> int:
    status = read_status(load_study(config), config, launcher_of_jobs(config.paths).job_states(config.paths))
    if arguments.json:
        print_json(status.as_dict())
    elif arguments.failed:
        lines = [*_failures(status.failed)]
        lines += [f"  trial {t.number}: interrupted ({t.cause}), waits to go on" for t in status.interrupted]
        print("\n".join(lines) or "no trial has failed")
    else:
        print("\n".join(screen(status, config)))
    return ExitCode.DONE


def run_watch(config: Config, arguments: Namespace) -> int:
    try:
        return follow(config, arguments.every)
    except KeyboardInterrupt:
        print("no longer watching; the study goes on", file=sys.stderr)
        return ExitCode.DONE


def follow(config: Config, every: float = _EVERY) -> int:
    """Show the study until it ends: DONE with its budget reached, STUDY_FAILED where nobody is left to reach it."""
    study = load_study(config)
    with _live(config) as show:
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
def _live(config: Config) -> Iterator[Callable[[Status], None]]:
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


def screen(status: Status, config: Config) -> Iterator[str]:
    """The status as text, one screen for an ordinary study."""
    counts = status.counts
    yield f"{bold(status.study)}  {dim(status.save_path)}"
    paused = [(counts.paused, "paused")] if counts.paused else []
    yield f"trials   {counts.finished} of {status.n_trials} done: " + ", ".join(
        f"{number} {state}"
        for number, state in (
            (counts.complete, "complete"),
            (counts.pruned, "pruned"),
            (counts.running, "running"),
            *paused,
            (counts.waiting + counts.ready, "waiting"),
            (counts.failed, "failed"),
        )
    )
    if status.ended:
        yield f"ended    by {status.ended}" + (f" ({counts.running} still run)" if counts.running else "")
    if status.search:
        yield f"search   {status.search}"
    yield from (f"warm     {summary}" for summary in status.taken_over)
    for change in status.changes[-_LAST_CHANGES:]:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(change.at))
        yield f"changed  {change} ({at}{', by a new start' if change.by == 'start' else ''})"
    if status.feasible is not None:
        yield f"feasible {status.feasible} of {counts.complete} complete trials"
    if not status.best and status.confirms is None:
        yield "best     -"
    yield from show_best(status.best, config)
    if status.confirms is not None:
        yield f"confirms study {status.confirms}; what it has found: aimlhpo confirm {Path(status.save_path).parent}"
    if status.confirmation is not None:
        yield f"confirm  {status.confirmation}: aimlhpo status {Path(status.save_path, FOLDER)}"
    if status.rate:
        left = f", {show_duration(status.eta)} left" if status.eta else ""
        yield f"rate     {show_rate(status.rate)}{left}"
    if status.reaped:
        yield f"note     agents are gone; their trials were given back: {', '.join(map(str, status.reaped))}"
    yield from _jobs(status)
    yield from _agents(status)
    if status.failed:
        last = status.failed[-_LAST_FAILURES:]
        yield f"\nfailed trials (the last {len(last)} of {len(status.failed)}):"
        yield from _failures(last)


def describe_rest(status: Status) -> str:
    """What is missing from the budget, in words; empty where nothing is."""
    if not status.left:
        return ""
    untried = status.left - status.given_up
    parts = [f"{untried} trials are left"] if untried > 0 else []
    fixed = "permutations" if status.confirms is None else "trainings"
    return ", ".join([*parts, f"{status.given_up} {fixed} have failed"] if status.given_up else parts)


def _jobs(status: Status) -> Iterator[str]:
    if not status.slurm_answers:
        yield "jobs     SLURM does not answer"
    elif status.jobs is not None:
        states = ", ".join(f"{number} {state.lower()}" for state, number in status.job_states.items())
        yield f"jobs     {states or 'none in the queue'}"
        for job in status.jobs:
            left = f", {show_duration(job.time_left)} left" if job.time_left is not None else ""
            reason = f" ({job.reason})" if job.reason else ""
            section = f"  {job.section}" if job.section else ""
            yield f"  {job.job}{section}  {job.state.lower()}{reason}" + (f" on {job.node}{left}" if job.node else "")
        yield from describe_failed_jobs(status)
    alone = {"": status.kept} if status.kept is not None else {}
    for name, kept in {**alone, **status.kept_by_section}.items():
        fewer = f" ({kept.fewer} fewer than slurm: jobs, because they were taken away)" if kept.fewer else ""
        of_section = f" of {name}" if name else ""
        yield f"keep     {kept.jobs} jobs{of_section}{fewer}; agents have submitted {kept.submitted} of {kept.limit}"
        if kept.failure:
            yield f"         could not submit: {kept.failure}"


def describe_failed_jobs(status: Status) -> Iterator[str]:
    """The jobs that failed last, with what is known of the cause and where their logs lie."""
    failed = [job for job in status.jobs or () if job.failed]
    for job in failed[-_LAST_FAILURES:]:
        yield f"job {job.job} failed" + (f": {job.cause}" if job.cause else "")
        if job.log:
            yield f"    {job.log}"


def describe_way_on(status: Status) -> str:
    """What makes a study go on that nobody works on: what has failed is run again by a new start alone."""
    if status.jobs is not None and not status.given_up and status.ended is None:
        return f"aimlhpo submit {status.save_path}"
    if status.confirms is not None:
        return f"aimlhpo confirm {Path(status.save_path).parent}"
    return "start it again with reload: 1"


def _describe_waiting(status: Status) -> str:
    """Why there are no agents where some may come; empty where none will."""
    if not status.slurm_answers:
        return "SLURM does not say whether jobs are queued"
    queued = sum(job.queued for job in status.jobs or ())
    begun = sum(not job.ended and not job.queued for job in status.jobs or ())
    parts = [f"{begun} job{'s' if begun > 1 else ''} just begun or ending"] if begun else []
    return ", ".join([*parts, f"waiting for {queued} queued job{'s' if queued > 1 else ''}"] if queued else parts)


def _agents(status: Status) -> Iterator[str]:
    if not status.agents:
        rest, waiting = describe_rest(status), _describe_waiting(status)
        if rest:
            yield f"agents   none; {waiting or f'{rest}: {describe_way_on(status)}'}"
        return
    yield f"\nagents ({len(status.agents)}), python {', '.join(sorted({agent.python for agent in status.agents}))}:"
    for agent in status.agents:
        job = f"job {agent.job}  " if agent.job else ""
        yield f"  {agent.agent}  {job}{agent.host}" + ("" if agent.trials else "  idle")
        for trial in agent.trials:
            report = ""
            if trial.last_report is not None:
                report = f"  step {trial.last_report[0]}: {show_number(trial.last_report[1])}"
            place = f"slot {trial.slot}, {trial.device}"
            yield f"    trial {trial.number}  {place}  {show_duration(trial.seconds)}{report}"


def _failures(trials: Sequence[FailedTrial]) -> Iterator[str]:
    """Each failed trial with its cause and where its log lies."""
    for trial in trials:
        yield f"  trial {trial.number}: {trial.cause}"
        if trial.log:
            at = f" from byte {trial.log_offset}" if trial.log_offset else ""
            yield f"    {trial.log}{at}"
