"""`aimlhpo confirm` and `aimlhpo export`: which configuration is really the best, and how it is trained elsewhere."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import optuna

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.check.check import check
from aimlhpo.cli.live_view import make_view
from aimlhpo.cli.loading import import_objective, number_of_workers
from aimlhpo.cli.messages import bold, green, print_json, print_note, print_notes
from aimlhpo.cli.verbs.jobs import print_plan, submit_jobs
from aimlhpo.cli.verbs.optimize import note_changed_objective
from aimlhpo.cli.verbs.results import print_columns
from aimlhpo.errors import ConfigError, ExitCode, Interrupted, Problem
from aimlhpo.launch.base import Launcher, launcher_for
from aimlhpo.ledger.changes import current_config
from aimlhpo.results.best import ranking
from aimlhpo.results.confirmation import (
    CELLS,
    Confirmation,
    confirmation_cells,
    confirmation_notes,
    read_confirmation,
)
from aimlhpo.results.export import export_trial
from aimlhpo.results.table import write_results
from aimlhpo.search.queues import (
    ConfirmationQueue,
    begin_confirmation,
    confirmation_config,
    count_trainings,
    distinct,
    extended,
    find_confirmation,
    plan_of,
    seed_keys,
)
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config


def run_confirm(config: Config, arguments: Namespace) -> int:
    _refuse_several_metrics(config)
    study = load_study(config)
    if plan_of(study) is not None:
        where = str(config.paths.save_path)
        raise ConfigError(Problem(where, "is a confirmation itself", str(config.paths.save_path.parent)))
    if arguments.json:
        found = read_confirmation(study)
        print_json(None if found is None else asdict(found))
        return ExitCode.DONE
    chosen = distinct(ranking(study, sys.maxsize), arguments.top)
    if not chosen:
        kept = " and keeps the constraints" if config.optuna.constraints else ""
        raise ConfigError(Problem(str(config.paths.save_path), f"no trial is complete{kept}", "a study with results"))
    _tell_choice(config, study, chosen, arguments.top)
    of = confirmation_config(config, study)
    before = find_confirmation(study)
    if before is not None:
        of = current_config(before, of)
    launcher = launcher_for(of, local=arguments.local is not None)
    in_jobs = of.in_section(arguments.section) if launcher.submits else of
    if arguments.dry_run:
        return _show_plan(in_jobs, study, chosen, arguments, launcher)
    plan = plan_of(before) if before is not None else None
    if before is not None and plan is not None and extended(plan, study, of, chosen, arguments.seeds) == plan:
        if not _open_trainings(study) and not ConfirmationQueue(before, plan).given_up():
            print("nothing to do: all of these trainings have ended before")
            return _print_end(study, config, ExitCode.NOTHING_TO_DO)
        jobs = launcher.live_jobs(of)
        if jobs:
            _print_found(study, config)
            print(f"{jobs} are at work on it; live: aimlhpo watch {of.paths.save_path}")
            return ExitCode.DONE
    print(_where_seeds_are(of), flush=True)
    return _train(config, in_jobs, study, chosen, arguments, launcher)


def run_export(config: Config, arguments: Namespace) -> int:
    exported = export_trial(load_study(config), config, arguments.directory, arguments.trial)
    print_notes(exported.notes)
    print(f"trial {exported.number} of study {config.optuna.study_name}, to be trained again:")
    for path in exported.files:
        print(f"  {path}")
    return ExitCode.DONE


def _train(
    config: Config,
    of: Config,
    study: optuna.Study,
    chosen: Sequence[FrozenTrial],
    arguments: Namespace,
    launcher: Launcher,
) -> int:
    """Run what is left of the confirmation `of` the study, or submit its jobs. Returns the exit code."""
    with ExitStack() as stack:
        fork_server = stack.enter_context(ForkServer())
        if of.optuna.command is None:
            import_objective(fork_server, of, workers=number_of_workers(arguments), local=not launcher.submits)
        problems = check(of, local=not launcher.submits, allow_changes=True, fork_server=fork_server)
        if problems:
            raise ConfigError(problems)
        of = begin_confirmation(study, of, chosen, arguments.seeds)
        if not launcher.submits:
            try:
                launcher.start(of, make_view(of), number_of_workers(arguments), fork_server)
            except Interrupted as error:
                message = (
                    f"{error.args[0].partition(':')[0]}: {read_confirmation(study)}, what was running was given back."
                )
                raise Interrupted(f"{message}\n    The same command goes on where it ended.") from error
            return _print_end(study, config, ExitCode.DONE)
    jobs = min(of.slurm.jobs if of.slurm is not None else 1, max(1, _open_trainings(study)))
    code = submit_jobs(of, launcher, jobs, wait=arguments.wait)
    if arguments.wait:
        return _print_end(study, config, ExitCode(code))
    print(f"what they find: aimlhpo confirm {config.paths.save_path}, with the same --top and --seeds")
    return code


def _refuse_several_metrics(config: Config) -> None:
    if len(config.optuna.metric) > 1:
        found = f"the study has {len(config.optuna.metric)} metrics, and no one configuration is its best"
        legal = "a study with one metric; aimlhpo top lists the Pareto front, and aimlhpo export hands one of it over"
        raise ConfigError(Problem("optuna: metric", found, legal))


def _tell_choice(config: Config, study: optuna.Study, chosen: Sequence[FrozenTrial], asked: int) -> None:
    """Notes on which trials are confirmed, and why it may not be those that the user thinks of."""
    if len(chosen) < asked:
        found = f"only {len(chosen)} different configurations are complete"
        print_note(found + (" and keep the constraints" if config.optuna.constraints else ""))
    if find_stop_reason(study, config, count(study.get_trials(deepcopy=False))) is None:
        print_note("the study has not ended; what it finds from now on is not confirmed")
    note_changed_objective(config, study)


def _where_seeds_are(of: Config) -> str:
    keys = "".join(f", and {key} in the model configuration" for key in seed_keys(of))
    own = "trial.seed" if of.optuna.command is None else "AIMLHPO_SEED in its environment"
    return f"each training has a seed of its own: {own}{keys}"


def _show_plan(
    of: Config, study: optuna.Study, chosen: Sequence[FrozenTrial], arguments: Namespace, launcher: Launcher
) -> int:
    before = find_confirmation(study)
    plan = plan_of(before) if before is not None else None
    asked = count_trainings(extended(plan, study, of, chosen, arguments.seeds))
    found = read_confirmation(study)
    left = asked - (found.complete if found is not None else 0)
    numbers = ", ".join(str(trial.number) for trial in chosen)
    print(green("ok:"), "nothing was started\n")
    print(f"trials {numbers} would be trained with {arguments.seeds} seeds each: {left} trainings are left of {asked}")
    print(_where_seeds_are(of))
    if launcher.submits and left:
        jobs = min(of.slurm.jobs if of.slurm is not None else 1, left)
        print_plan(of, launcher, jobs)
    return ExitCode.DONE


def _open_trainings(study: optuna.Study) -> int:
    """How many trainings of its confirmation run or wait."""
    found = read_confirmation(study)
    return 0 if found is None else found.open


def _print_end(study: optuna.Study, config: Config, code: ExitCode) -> int:
    """Write best.yml anew and print what has been found; FAILED where nothing could be proven."""
    files = write_results(study, config)
    found = _print_found(study, config)
    for path in files.best[:1]:
        print(f"  {path}")
    return ExitCode.STUDY_FAILED if found is None or (found.winner is None and not found.open) else code


def _print_found(study: optuna.Study, config: Config) -> Confirmation | None:
    found = read_confirmation(study)
    if found is None:
        return None
    metric, direction = config.optuna.metric[0], config.optuna.direction[0]
    print(f"{config.optuna.study_name}, {direction} {metric}: {found}")
    rows = list(confirmation_cells(found))
    print_columns([[name, *(row[place] for row in rows)] for place, name in enumerate(CELLS)])
    for note in confirmation_notes(found):
        print(note)
    if found.winner is not None and (winner := found.of(found.winner)) is not None:
        print(f"{bold('proven')}   trial {winner.number}: {winner}")
    return found
