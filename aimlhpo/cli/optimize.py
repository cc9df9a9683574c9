"""`--show sampler`, `--show pruner`: every option of the chosen class.
`aimlhpo optimize`: the main command.
"""

from __future__ import annotations

import inspect
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.cli.arguments import UsageError, add_config_arguments, config_flags, fill_local, make_parser
from aimlhpo.cli.messages import bold, green, nothing_to_do, print_ended, print_results, rows
from aimlhpo.errors import ConfigError, DeviceError, ExitCode, show

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


def show_strategy(config: Config, kind: str) -> int:
    """Print the options of the study's sampler or pruner with their values and defaults. Raises ConfigError."""
    from aimlhpo.config.overrides import DEFAULTS
    from aimlhpo.search.building import check_strategy
    from aimlhpo.search.registry import class_named, options

    section = config.optuna.sampler if kind == "sampler" else config.optuna.pruner
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    name, given = (section.type, section.arguments) if section else (DEFAULTS[kind], {})
    known = options(class_named(kind, name))
    print(f"{bold(name)}: set an option with {kind}.OPTION=VALUE, or in the YAML under optuna: {kind}\n")
    rows([(option, _value(parameter, option, given)) for option, parameter in known.items()])
    return ExitCode.DONE


def _value(parameter: inspect.Parameter, option: str, given: dict[str, Any]) -> str:
    default = "needed" if parameter.default is parameter.empty else f"default {show(parameter.default)}"
    return f"{show(given[option])} ({default})" if option in given else default


_SUMMARY = """\
Search for the best configuration.

Without a `slurm` section, or with --local, the study runs here; otherwise its jobs are submitted and
the command returns."""
_EXAMPLES = """\
aimlhpo optimize hyperparameters.yml model.yml
aimlhpo optimize hyperparameters.yml model.yml --local 2
aimlhpo optimize hyperparameters.yml model.yml -r 1 -t 200
aimlhpo optimize hyperparameters.yml model.yml optuna:sampler:type=TPESampler model:dropout=0.1
aimlhpo optimize hyperparameters.yml model.yml 'optimizer.learning_rate=tag(log, interval(1e-5, 0.1))'
aimlhpo optimize hyperparameters.yml model.yml --show sampler
"""


def run(argv: Sequence[str]) -> int:
    arguments = _parse(argv)
    with ForkServer() as fork_server:  # first of all: the objective's imports take longest
        return _run(arguments, fork_server)


def _run(arguments: Namespace, fork_server: ForkServer) -> int:
    from aimlhpo.check.settings import load_config

    load_objective = partial(_load_objective, arguments, fork_server)
    files = arguments.hyperparameters, arguments.model
    config = load_config(*files, arguments.overrides, config_flags(arguments), load_objective)
    if arguments.show:
        return show_strategy(config, arguments.show)
    _tell_default_storage(config)
    here = _runs_here(arguments, config)
    if here and not arguments.dry_run:
        _import_for_run(config)
    _check(config, arguments, here, fork_server)
    if arguments.dry_run:
        return _dry_run(config, here)
    from aimlhpo.search.stopping import ended_already

    study = _study(config, arguments)
    ended = ended_already(study, config)
    if ended:
        print(nothing_to_do(config, ended))
        _tell_results(study, config)
        return ExitCode.NOTHING_TO_DO
    if arguments.create_only:
        print(f"study {config.optuna.study_name} is ready in {config.optuna.storage}")
        return ExitCode.DONE
    if here:
        return _run_here(config, arguments, fork_server)
    fork_server.close()  # the jobs have their own
    return _submit(config, wait=arguments.wait)


def _runs_here(arguments: Namespace, config: Config) -> bool:
    return config.slurm is None or arguments.local is not None


def _load_objective(arguments: Namespace, fork_server: ForkServer, config: Config) -> None:
    """Have the objective imported while the rest is checked; in the first slot's environment where it trains here."""
    from aimlhpo.worker.devices import plan_local_slots

    environment: dict[str, str] = {}
    if _runs_here(arguments, config):
        with suppress(DeviceError):  # told by the check
            environment = plan_local_slots(config, arguments.workers)[0].environment()
    fork_server.load(config.optuna.objective or "", environment)


def _import_for_run(config: Config) -> None:
    """Import what a run on this machine needs now, while the fork server imports the objective."""
    for module in ("aimlhpo.cli.live_view", "aimlhpo.launch.local", "aimlhpo.search.warm_start"):
        import_module(module)
    if not config.optuna.storage.startswith("journal"):
        import_module("aimlhpo.storage.sql")
        import_module("alembic.context")  # Optuna makes its tables with it


def _parse(argv: Sequence[str]) -> Namespace:
    parser = make_parser("optimize", _SUMMARY, _EXAMPLES)
    add_config_arguments(parser)
    parser.add_argument("-c", "--create-only", action="store_true", help="create the study and run nothing")
    parser.add_argument(
        "--local",
        nargs="?",
        const="auto",
        metavar="N",
        help="run on this machine, on N workers (default: one for each GPU with gpu: true, else one)",
    )
    parser.add_argument(
        "--show", choices=("sampler", "pruner"), help="print every option of it with its default, and run nothing"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, show what would run")
    parser.add_argument("--wait", action="store_true", help="follow submitted jobs to the end of the study")
    parser.add_argument(
        "--allow-changes", action="store_true", help="go on with a study whose ranges or model YAML have changed"
    )
    arguments = parser.parse_intermixed_args(fill_local(argv))
    arguments.local = _workers(arguments.local)
    arguments.workers = arguments.local if isinstance(arguments.local, int) else None
    return arguments


def _workers(text: str | None) -> int | str | None:
    """The value of --local: a number of workers, "auto", or None where it was not given."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--local: {text!r} is not a number of workers; legal: a whole number from 1, or nothing")
    return int(text)


def _tell_default_storage(config: Config) -> None:
    """Several jobs get another default than one machine: say so."""
    storage = config.optuna.storage
    if not config.storage_named and storage.startswith("journal:"):
        file = storage.removeprefix("journal://")
        print(f"note: no storage is named; jobs on several nodes share a journal file, {file}", file=sys.stderr)


def _check(config: Config, arguments: Namespace, here: bool, fork_server: ForkServer) -> None:
    from aimlhpo.check.check import check
    from aimlhpo.cli.check import tell_notes

    problems = check(config, local=here, allow_changes=arguments.allow_changes, fork_server=fork_server)
    if problems:
        raise ConfigError(problems)
    tell_notes(config)


def _dry_run(config: Config, here: bool) -> int:
    from aimlhpo.cli.check import summary

    print(green("ok:"), "nothing was started\n")
    rows(summary(config))
    if here:
        return ExitCode.DONE
    from aimlhpo.cli.submit import show

    print()
    return show(config)


def _study(config: Config, arguments: Namespace) -> optuna.Study:
    import optuna

    from aimlhpo.search.warm_start import begin_study, import_summaries

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = begin_study(config, allow_changes=arguments.allow_changes)
    config.write_snapshot()
    _tell_changed_objective(study, config)
    for account in import_summaries(study):
        print(account)
    return study


def _tell_changed_objective(study: optuna.Study, config: Config) -> None:
    """The objective is read live: trials of a reloaded study may have been made with another text of it."""
    from aimlhpo.config.command import command_spec
    from aimlhpo.worker.provenance import sha256_of

    stored = (value for key, value in study.user_attrs.items() if key.startswith("aimlhpo:provenance:"))
    known = {provenance.get("objective_sha256") for provenance in stored}
    spec = command_spec(config)
    source = spec.source if spec else config.optuna.objective
    if known and source and sha256_of(Path(source)) not in known:
        print(f"note: {source} has changed since the study's trials were made", file=sys.stderr)


def _run_here(config: Config, arguments: Namespace, fork_server: ForkServer) -> int:
    from aimlhpo.cli.live_view import make_view
    from aimlhpo.launch.local import run_local
    from aimlhpo.storage.study import load_study

    run_local(config, make_view(config), arguments.workers, fork_server)
    study = load_study(config)
    feasible = _tell_results(study, config)
    _tell_failed_permutations(study, config)
    print_ended(study, config)
    return ExitCode.DONE if feasible else ExitCode.STUDY_FAILED


def _tell_failed_permutations(study: optuna.Study, config: Config) -> None:
    """A grid's trial that failed is not replaced by another: say what becomes of it."""
    from aimlhpo.search.grid import declared_grid
    from aimlhpo.storage.trials import count

    counts = count(study.get_trials(deepcopy=False))
    left = config.optuna.n_trials - counts.finished
    if left > 0 and counts.failed and declared_grid(config) is not None:
        print(
            f"note: {left} of {config.optuna.n_trials} permutations have failed (aimlhpo status --failed tells why); "
            "the same command with reload: 1 runs them again",
            file=sys.stderr,
        )


def _tell_results(study: optuna.Study, config: Config) -> bool:
    from aimlhpo.results.table import write_results

    return print_results(study, config, write_results(study, config))


def _submit(config: Config, *, wait: bool) -> int:
    from aimlhpo.cli.submit import submit

    return submit(config, wait=wait)
