"""`aimlhpo check`: every mistake at once, before anything is started."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import add_config_arguments, config_flags, make_parser
from aimlhpo.cli.messages import as_json, green, rows
from aimlhpo.errors import ConfigError, ExitCode, Problem, show, storage_kind

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_EXAMPLES = """\
aimlhpo check hyperparameters.yml model.yml
aimlhpo check hyperparameters.yml model.yml --json
"""


def run(argv: Sequence[str]) -> int:
    arguments = _parse(argv)
    config, problems = _check(arguments)
    if arguments.json:
        shown = dict(summary(config)) if config is not None and not problems else None
        as_json(
            {
                "ok": not problems,
                "problems": [problem.as_dict() for problem in problems],
                "notes": notes(config) if shown is not None and config is not None else [],
                "summary": shown,
            }
        )
    elif problems:
        raise ConfigError(problems)
    elif config is not None:
        print(green("ok:"), "the study can start; nothing was started or changed\n")
        rows(summary(config))
        tell_notes(config)
    return ExitCode.CONFIG if problems else ExitCode.DONE


def _parse(argv: Sequence[str]) -> Namespace:
    parser = make_parser("check", "Find every mistake without starting or changing anything.", _EXAMPLES)
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")
    parser.add_argument("--allow-changes", action="store_true", help="let a reloaded study's ranges change")
    return parser.parse_intermixed_args(argv)


def _check(arguments: Namespace) -> tuple[Config | None, list[Problem]]:
    from aimlhpo.check.check import check
    from aimlhpo.check.settings import load_config

    try:
        config = load_config(arguments.hyperparameters, arguments.model, arguments.overrides, config_flags(arguments))
    except ConfigError as error:
        return None, error.problems
    return config, check(config, allow_changes=arguments.allow_changes)


def notes(config: Config) -> list[str]:
    """What is right, and could be better or is probably mistyped."""
    from aimlhpo.check.check import hints
    from aimlhpo.check.samplers import warnings_for

    return [*hints(config), *warnings_for(config)]


def tell_notes(config: Config) -> None:
    """The notes on standard error, one line each."""
    for note in notes(config):
        print(f"note: {note}", file=sys.stderr)


def summary(config: Config) -> list[tuple[str, str]]:
    """What would run, in names and values."""
    from aimlhpo.space.grid import grid_of

    section, parameters = config.optuna, config.space.parameters
    grid = grid_of(config.space)
    sampler = section.sampler.type if section.sampler else "TPESampler (Optuna's default)"
    goals = [f"{way} {metric}" for metric, way in zip(section.metric, section.direction, strict=True)]
    return [
        ("study", f"{section.study_name} ({'reloaded' if section.reload else 'new'})"),
        ("storage", f"{storage_kind(section.storage)}: {section.storage}"),
        ("save_path", section.save_path),
        ("objective", f"{section.objective or section.command}: {', '.join(goals)}"),
        ("parameters", f"{len(parameters)}: {', '.join(p.name for p in parameters)}"),
        ("n_trials", f"{section.n_trials} of {grid.permutations} permutations" if grid else str(section.n_trials)),
        *_beginning_and_end(config),
        ("sampler", "none: a full grid" if grid else sampler),
        ("pruner", section.pruner.type if section.pruner else "MedianPruner (Optuna's default)"),
        ("runs", _where(config)),
    ]


def _beginning_and_end(config: Config) -> Iterator[tuple[str, str]]:
    """What the study begins with, and what else may end it."""
    from aimlhpo.check.settings import RULES

    rules = {key: config.hyperparameters["optuna"].get(key) for key in RULES}
    given = [f"{key} {show(value)}" for key, value in rules.items() if value is not None]
    if given:
        yield "or until", ", ".join(given)
    if config.optuna.warm_start_from is not None:
        from aimlhpo.search.warm_start import is_imported, summarize_import

        if not is_imported(config):
            yield "warm start", str(summarize_import(config))


def _where(config: Config) -> str:
    device = "a GPU each" if config.optuna.gpu else "no GPU"
    if config.slurm is None:
        return f"on this machine, {device}"
    return (
        f"in {config.slurm.jobs} SLURM job{'s' if config.slurm.jobs != 1 else ''} (--local: on this machine), {device}"
    )
