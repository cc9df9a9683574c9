"""`aimlhpo submit`: more jobs for a study that is under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import UsageError, add_study_argument, make_parser
from aimlhpo.cli.messages import nothing_to_do, rows
from aimlhpo.errors import ExitCode

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.search.stopping import StopReason

_SUMMARY = """\
Submit jobs for a study that was started before, with the files as they were then.

Workers are added while the study runs; one that was interrupted goes on."""
_EXAMPLES = """\
aimlhpo submit runs/digits
aimlhpo submit runs/digits --jobs 5
aimlhpo submit hyperparameters.yml --jobs 5 --dry-run
"""


def run(argv: Sequence[str]) -> int:
    parser = make_parser("submit", _SUMMARY, _EXAMPLES)
    add_study_argument(parser)
    parser.add_argument("--jobs", metavar="N", help="number of jobs (default: slurm: jobs)")
    parser.add_argument("--dry-run", action="store_true", help="show the script, submit nothing")
    parser.add_argument("--wait", action="store_true", help="follow the study to its end")
    arguments = parser.parse_args(argv)
    jobs = _number(arguments.jobs)

    from aimlhpo.cli.arguments import load_target

    config = load_target(arguments.study)
    if arguments.dry_run:
        return show(config, jobs)
    ended = _ended(config)
    if ended:
        print(nothing_to_do(config, ended))
        return ExitCode.NOTHING_TO_DO
    return submit(config, jobs, wait=arguments.wait)


def show(config: Config, jobs: int | None = None) -> int:
    """What would be submitted: in words, then the script."""
    from aimlhpo.launch.slurm.describe import describe_jobs
    from aimlhpo.launch.slurm.sbatch import submit

    planned = submit(config, jobs=jobs, dry_run=True)
    rows(describe_jobs(config, planned.submission))
    print(f"\n{planned.script}", end="")
    return ExitCode.DONE


def submit(config: Config, jobs: int | None = None, *, wait: bool = False) -> int:
    """Submit the jobs and say how to go on; with `wait`, follow the study to its end."""
    from aimlhpo.launch.slurm.describe import describe_submitted
    from aimlhpo.launch.slurm.sbatch import submit as submit_jobs

    done = submit_jobs(config, jobs=jobs)
    count = sum(array.count for array in done.arrays)
    print(f"study {config.optuna.study_name}: {count} job{'s' if count > 1 else ''} submitted")
    rows(describe_submitted(config, done))
    if not wait:
        return ExitCode.DONE
    from aimlhpo.cli.watch import follow

    return follow(config)


def _ended(config: Config) -> StopReason | None:
    from aimlhpo.search.stopping import ended_already
    from aimlhpo.storage.study import load_study

    return ended_already(load_study(config), config)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs: {text!r} is not a number of jobs; legal: a whole number from 1")
    return int(text)
