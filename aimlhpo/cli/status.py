"""`aimlhpo status`: how a study stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import add_study_argument, make_parser
from aimlhpo.cli.messages import as_json, bold, dim, green
from aimlhpo.errors import ExitCode, show_duration, show_number, show_rate

if TYPE_CHECKING:
    from aimlhpo.results.status import AgentStatus, FailedTrial, JobStatus, Status

_EXAMPLES = """\
aimlhpo status runs/digits
aimlhpo status hyperparameters.yml --json
aimlhpo status runs/digits --failed
"""
_LAST_FAILURES = 3


def run(argv: Sequence[str]) -> int:
    parser = make_parser("status", "How a study stands: trials, best value, agents, jobs, failures.", _EXAMPLES)
    add_study_argument(parser)
    parser.add_argument("--json", action="store_true", help="everything as JSON, for scripts")
    parser.add_argument(
        "--failed", action="store_true", help="list all failed and interrupted trials with cause and log"
    )
    arguments = parser.parse_args(argv)

    from aimlhpo.cli.arguments import load_target

    config = load_target(arguments.study)
    from aimlhpo.launch.slurm.queue import job_states_of
    from aimlhpo.results.status import read_status
    from aimlhpo.storage.study import load_study

    status = read_status(load_study(config), config, job_states_of(config.paths))
    if arguments.json:
        as_json(status.as_dict())
    elif arguments.failed:
        print("\n".join([*failures(status.failed), *interruptions(status)]) or "no trial has failed")
    else:
        print("\n".join(screen(status)))
    return ExitCode.DONE


def screen(status: Status) -> Iterator[str]:
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
        yield f"ended    by {status.ended}" + (f" ({status.counts.running} still run)" if status.counts.running else "")
    yield from (f"warm     {account}" for account in status.taken_over)
    yield from _best(status)
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
        yield from failures(last)


def rest(status: Status) -> str:
    """What the budget lacks, in words; empty where it lacks nothing."""
    if not status.left:
        return ""
    untried = status.left - status.given_up
    parts = [f"{untried} trials are left"] if untried > 0 else []
    return ", ".join([*parts, f"{status.given_up} permutations have failed"] if status.given_up else parts)


def _best(status: Status) -> Iterator[str]:
    if status.feasible is not None:
        yield f"feasible {status.feasible} of {status.counts.complete} complete trials"
    if not status.best:
        yield "best     -"
    for best in status.best:
        values = ", ".join(f"{name} {show_number(value)}" for name, value in best.values.items())
        yield f"best     {green(values)} (trial {best.number}{f', {best.origin}' if best.origin else ''})"


def _agents(status: Status) -> Iterator[str]:
    if not status.agents:
        left = rest(status)
        if left:
            yield f"agents   none; {left}: start again with reload: 1"
        return
    yield f"\nagents ({len(status.agents)}), python {', '.join(sorted({agent.python for agent in status.agents}))}:"
    for agent in status.agents:
        yield from _agent(agent)


def _agent(agent: AgentStatus) -> Iterator[str]:
    job = f"job {agent.job}  " if agent.job else ""
    yield f"  {agent.agent}  {job}{agent.host}" + ("" if agent.trials else "  idle")
    for trial in agent.trials:
        report = ""
        if trial.last_report is not None:
            report = f"  step {trial.last_report[0]}: {show_number(trial.last_report[1])}"
        place = f"slot {trial.slot}, {trial.device}"
        yield f"    trial {trial.number}  {place}  {show_duration(trial.seconds)}{report}"


def _jobs(status: Status) -> Iterator[str]:
    if not status.slurm_answers:
        yield "jobs     SLURM does not answer"
    elif status.jobs is not None:
        states = ", ".join(f"{number} {state.lower()}" for state, number in status.job_states.items())
        yield f"jobs     {states or 'none in the queue'}"
        for job in status.jobs:
            yield _job(job)


def _job(job: JobStatus) -> str:
    left = f", {show_duration(job.time_left)} left" if job.time_left is not None else ""
    why = f" ({job.reason})" if job.reason else ""
    return f"  {job.job}  {job.state.lower()}{why}" + (f" on {job.node}{left}" if job.node else "")


def failures(trials: Sequence[FailedTrial]) -> Iterator[str]:
    """Each failed trial with its cause and where its log lies."""
    for trial in trials:
        yield f"  trial {trial.number}: {trial.cause}"
        if trial.log:
            at = f" from byte {trial.log_offset}" if trial.log_offset else ""
            yield f"    {trial.log}{at}"


def interruptions(status: Status) -> Iterator[str]:
    """Each trial that was given back before its end, and why."""
    for trial in status.interrupted:
        yield f"  trial {trial.number}: interrupted ({trial.cause}), waits to go on"
