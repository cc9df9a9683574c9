"""`aimlhpo optimize`: the main command. It checks, makes or reloads the study, and starts it here or on the cluster."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING

import optuna

from aimlhpo.check.check import check, summarize
from aimlhpo.check.samplers import warnings_for
from aimlhpo.cli.live_view import make_view
from aimlhpo.cli.loading import keys_given, number_of_workers
from aimlhpo.cli.messages import bold, green, print_note, print_notes, print_nothing_to_do, print_rows
from aimlhpo.cli.verbs.jobs import print_plan, submit_jobs
from aimlhpo.cli.verbs.results import print_results
from aimlhpo.config.command import command_spec
from aimlhpo.errors import ConfigError, ExitCode, show
from aimlhpo.launch.base import launcher_for
from aimlhpo.ledger.changes import current_config, settle_start
from aimlhpo.objective.base import has_changed
from aimlhpo.results.table import write_results
from aimlhpo.search.building import check_strategy, class_named, options, strategies, strategies_now
from aimlhpo.search.stopping import ended_already, find_stop_reason
from aimlhpo.search.warm_start import begin_study, import_summaries
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.attributes import provenances
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


def run_optimize(config: Config, arguments: Namespace) -> int:
    if arguments.show:
        return _show_strategy(config, arguments.show)
    storage = config.optuna.storage
    if not config.storage_named and storage.startswith("journal:"):
        # Several jobs get another default than one machine.
        file = storage.removeprefix("journal://")
        print_note(f"no storage is named; jobs on several nodes share a journal file, {file}")
    launcher = launcher_for(config, local=arguments.local is not None)
    if not (launcher.submits or arguments.dry_run or storage.startswith("journal")):
        # What the study will need is imported now, while the fork server imports the objective.
        import_module("aimlhpo.storage.sql")
        import_module("alembic.context")  # Optuna makes its tables with it
    problems = check(
        config,
        local=not launcher.submits,
        allow_changes=arguments.allow_changes,
        fork_server=arguments.fork_server,
    )
    if problems:
        raise ConfigError(problems)
    print_notes(warnings_for(config))
    if arguments.dry_run:
        print(green("ok:"), "nothing was started\n")
        print_rows(summarize(config))
        if launcher.submits:
            print()
            print_plan(config, launcher)
        return ExitCode.DONE

    study, config = begin(config, allow_changes=arguments.allow_changes, given=keys_given(arguments, config))
    ended = ended_already(study, config)
    if ended:
        print_nothing_to_do(config, ended)
        print_results(study, config, write_results(study, config))
        return ExitCode.NOTHING_TO_DO
    if arguments.create_only:
        print(f"study {config.optuna.study_name} is ready in {config.optuna.storage}")
        return ExitCode.DONE
    if launcher.submits:
        arguments.fork_server.close()  # the jobs have their own
        return submit_jobs(config, launcher, wait=arguments.wait)
    launcher.start(config, make_view(config), number_of_workers(arguments), arguments.fork_server)
    return _print_end(config)


def _show_strategy(config: Config, kind: str) -> int:
    """Print the options of the study's sampler or pruner with their values and defaults. Raises ConfigError."""
    section = config.optuna.sampler if kind == "sampler" else config.optuna.pruner
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    chosen = strategies_now(config)
    used = chosen.sampler if kind == "sampler" else chosen.pruner
    name, given = used.type, used.arguments
    rows = []
    for option, parameter in options(class_named(kind, name)).items():
        default = "needed" if parameter.default is parameter.empty else f"default {show(parameter.default)}"
        rows.append((option, f"{show(given[option])} ({default})" if option in given else default))
    if kind in chosen.automatic:
        print(f"{kind}: {chosen.in_words(kind)}\n")
    print(f"{bold(name)}: set an option with {kind}.OPTION=VALUE, or in the YAML under optuna: {kind}\n")
    print_rows(rows)
    return ExitCode.DONE


def note_changed_objective(config: Config, study: optuna.Study, note: Callable[[str], None] = print_note) -> None:
    """The objective is read live: the study's trials may have been made with another text of it."""
    spec = command_spec(config)
    source = spec.source if spec else config.optuna.objective
    if has_changed(source, provenances(study)):
        note(f"{source} has changed since the study's trials were made")


def begin(
    config: Config,
    *,
    allow_changes: bool,
    given: Collection[str] = (),
    say: Callable[[str], None] = print,
    note: Callable[[str], None] = print_note,
) -> tuple[optuna.Study, Config]:
    """Create or reload the study, and tell what is noteworthy about the trials that it has. Raises StudyError.

    `given` are the keys of the configuration that were given beside the files. Returns the configuration that holds,
    too: what was changed while the study ran may go before what the files say.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = begin_study(config, allow_changes=allow_changes)
    config, winners = settle_start(study, config, given)
    for line in winners:
        note(line)
    chosen = strategies(config, study)
    if chosen.automatic and grid_of(config.space) is None:
        say("; ".join(f"{kind} {chosen.in_words(kind)}" for kind in ("sampler", "pruner") if kind in chosen.automatic))
    note_changed_objective(config, study, note)
    for summary in import_summaries(study):
        say(str(summary))
    return study, config


def _write_report(study: optuna.Study, config: Config) -> None:
    """Write the report and say where it is, or why it is not there: the results are, whatever happens here."""
    from aimlhpo.results.page import write_report  # what it imports would keep every study waiting at its start

    try:
        print(f"report: {write_report(study, config, config.paths.report)}")
    except ConfigError as error:
        print(f"no report was written: {error.problems[0].found}; {error.problems[0].legal}")
    except Exception as error:  # noqa: BLE001  the study has ended well, and the command below tells all about it
        print_note(f"no report was written: {error}; see aimlhpo report {config.paths.save_path}")


def _print_end(config: Config) -> int:
    """The results of a study that has run here, and what ended it. Returns the exit code."""
    study = load_study(config)
    config = current_config(study, config)
    feasible = print_results(study, config, write_results(study, config))
    counts = count(study.get_trials(deepcopy=False))
    left = config.optuna.n_trials - counts.finished
    if left > 0 and counts.failed and grid_of(config.space) is not None:
        # A grid's trial that failed is not replaced by another.
        print(
            f"note: {left} of {config.optuna.n_trials} permutations have failed (aimlhpo status --failed tells why); "
            "the same command with reload: 1 runs them again",
            file=sys.stderr,
        )
    ended = find_stop_reason(study, config, counts)
    if ended:
        print(f"study {config.optuna.study_name} ended by {ended}")
    if config.log.report:
        _write_report(study, config)
    return ExitCode.DONE if feasible else ExitCode.STUDY_FAILED
