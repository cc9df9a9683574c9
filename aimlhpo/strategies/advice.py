"""What works with a study's sampler and constraints, and could be better, or is probably mistyped."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.samplers import CmaEsSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, TPESampler

from aimlhpo.strategies.naming import class_named
from aimlhpo.strategies.situation import Situation, is_categorical
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

if TYPE_CHECKING:
    from aimlhpo.config import Config

_MODELLED = ("TPESampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler")  # samplers that learn from constraints
_UNAWARE = ("RandomSampler", "QMCSampler", "GridSampler", "BruteForceSampler")


def advice(config: Config) -> list[str]:
    """One line each, on a checked configuration."""
    study = Situation.of(config)
    return [*_sampler(config, study), *_constraints(config, study)]


def _sampler(config: Config, study: Situation) -> Iterator[str]:
    section = config.optuna.sampler
    name, arguments = (section.type, section.arguments) if section else ("TPESampler", {})
    cls, here = class_named("sampler", name), key_path("optuna", "sampler")
    conditional = [p.name for p in study.space.parameters if not study.in_every_trial(p)]
    population = arguments.get("population_size", 50)
    if issubclass(cls, NSGAIISampler | NSGAIIISampler) and study.n_trials <= population:
        yield (
            f"{key_path(here, 'population_size')}: {population} trials are drawn at random before {name} begins to "
            f"learn, and n_trials is {study.n_trials}"
        )
    left = [p.name for p in study.space.parameters if p.name in conditional or is_categorical(p)]
    if issubclass(cls, CmaEsSampler) and left:
        yield f"{here}: {name} draws {listing(left)} at random: it searches ranges of numbers that every trial has"
    if issubclass(cls, QMCSampler | GPSampler) and conditional:
        yield f"{here}: {name} draws {listing(conditional)} at random: it searches what every trial has"
    together = arguments.get("multivariate", len(study.metric) == 1) and not arguments.get("group")
    if issubclass(cls, TPESampler) and conditional and together:
        yield (
            f"{here}: {name} samples {listing(conditional)} apart from the others, as not every trial has them; "
            "group: true takes together what trials have in common"
        )
    if study.constraints and name in _UNAWARE:
        yield f"{here}: {name} samples without regard to the constraints; these do: {listing(_MODELLED)}"


def _constraints(config: Config, study: Situation) -> Iterator[str]:
    """Names that neither a parameter nor a metric has, and that look like something else that is there."""
    known = {*study.by_name, *study.metric}
    written = _words_of(config.optuna.objective)
    for index, constraint in enumerate(study.constraints):
        for name in constraint.names:
            near = did_you_mean(name, known | written, cutoff=0.75)
            if name not in known and name not in written and near is not None:
                where = key_path("optuna", "constraints", index)
                yield f"{where}: nothing is known to be named {show(name)}; did you mean {near}?"


def _words_of(objective: str | None) -> set[str]:
    """The texts in an objective's file that may be names of metrics."""
    if objective is None:
        return set()
    try:
        tree = ast.parse(Path(objective).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return set()  # told where the objective itself is checked
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
    return {text for text in texts | keywords if text.isidentifier()}
