"""What is right, and could be better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.config.values import as_number
from aimlhpo.suggestions import key_path, show

if TYPE_CHECKING:
    from aimlhpo.config.study_config import Config

FEWEST = 3


def hints(config: Config) -> list[str]:
    """Advice on a checked configuration, one line each."""
    return [
        f"{key_path('optuna', 'parameters', key)}: {show(section.settings['choices'])} are numbers in order: "
        "the type ordinal (or log_ordinal) tells the sampler which are neighbours"
        for key, section in config.optuna.parameters.items()
        if section.type == "categorical" and _ordered_numbers(section.settings["choices"])
    ]


def _ordered_numbers(choices: list[object]) -> bool:
    numbers = [None if isinstance(choice, str) else as_number(choice) for choice in choices]
    known = [number for number in numbers if number is not None]
    return len(known) == len(choices) >= FEWEST and known == sorted(known)
