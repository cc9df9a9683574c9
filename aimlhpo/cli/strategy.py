"""`--show sampler`, `--show pruner`: every option of the chosen class."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from aimlhpo.cli import messages
from aimlhpo.errors import ConfigError, ExitCode
from aimlhpo.suggestions import show

if TYPE_CHECKING:
    from aimlhpo.config import Config


def show_strategy(config: Config, kind: str) -> int:
    """Print the options of the study's sampler or pruner with their values and defaults. Raises ConfigError."""
    from aimlhpo.config.swept import DEFAULTS
    from aimlhpo.strategies import check_strategy, class_named, options

    section = config.optuna.sampler if kind == "sampler" else config.optuna.pruner
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    name, given = (section.type, section.arguments) if section else (DEFAULTS[kind], {})
    known = options(class_named(kind, name))
    print(f"{messages.bold(name)}: set an option with {kind}.OPTION=VALUE, or in the YAML under optuna: {kind}\n")
    messages.rows([(option, _value(parameter, option, given)) for option, parameter in known.items()])
    return ExitCode.DONE


def _value(parameter: inspect.Parameter, option: str, given: dict[str, Any]) -> str:
    default = "needed" if parameter.default is parameter.empty else f"default {show(parameter.default)}"
    return f"{show(given[option])} ({default})" if option in given else default
