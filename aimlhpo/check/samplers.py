"""Whether a study's sampler, pruner and constraints can do what the study asks of them, before anything runs.

`suitability_problems` checks them by rules (`sampler_rules`), and then runs a few trials in memory with made-up values
(`dry_run`). `warnings_for` names what works and could be better, or is probably mistyped.
"""

from __future__ import annotations

import ast
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, TPESampler

from aimlhpo.check.sampler_rules import StudyContext, combination_problems, constraint_problems, is_categorical
from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.search.automatic import strategies
from aimlhpo.search.building import check_strategy, class_named, in_one_line, make_pruner, make_sampler
from aimlhpo.space.parameter_types import is_number
from aimlhpo.space.search_space import grid_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

TRIALS = 30  # of a dry run
SECONDS = 0.5  # a dry run ends early where a sampler takes its time
_STEPS = 4  # reports of each trial
_FEWEST_IN_ORDER = 3  # choices: fewer have no order to speak of
_LEARN_CONSTRAINTS = ("TPESampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler")
_IGNORE_CONSTRAINTS = ("RandomSampler", "QMCSampler", "GridSampler", "BruteForceSampler")


def suitability_problems(config: Config) -> list[Problem]:
    """Every problem of sampler, pruner and terminator by themselves, or else those that they have in this study."""
    options = config.optuna
    sections = {"sampler": options.sampler, "pruner": options.pruner, "terminator": options.terminator}
    problems = [problem for kind, section in sections.items() for problem in check_strategy(kind, section)]
    study = StudyContext.of(config)
    problems += constraint_problems(study)
    if problems or grid_of(config.space) is not None:
        return problems
    chosen = strategies(config)
    for kind, section in {**sections, "sampler": chosen.sampler, "pruner": chosen.pruner}.items():
        if section is not None:
            entry = {"type": section.type, **section.arguments}
            problems += combination_problems(kind, entry, key_path("optuna", kind), study)
    if problems:
        return problems
    sampler = make_sampler(chosen.sampler, options.seed or 0, study.space.encode)
    return dry_run(sampler, make_pruner(chosen.pruner), study)


def dry_run(sampler: BaseSampler, pruner: BasePruner, study: StudyContext) -> list[Problem]:
    """What the sampler or the pruner raises in a few trials; GPSampler is left out, as it would take seconds."""
    if isinstance(sampler, GPSampler) or not study.space.parameters:
        return []
    numbers = random.Random(0)
    deadline = time.monotonic() + SECONDS
    with _without_warnings():
        played = optuna.create_study(directions=study.directions, sampler=sampler, pruner=pruner)
        played._thread_local.in_optimize_loop = True  # a sampler that has tried everything may say so
        for _ in range(min(TRIALS, study.n_trials)):
            try:
                trial = played.ask()
                study.space.suggest(trial)
                for constraint in study.constraints:
                    trial.set_constraint(constraint.text, numbers.uniform(-1, 1))
            except Exception as error:  # noqa: BLE001  the sampler's own, whatever it is
                return [_dry_run_problem("sampler", sampler, "suggest values", error)]
            try:
                for step in range(_STEPS if len(study.metric) == 1 else 0):
                    trial.report(numbers.random(), step)
                    trial.should_prune()
            except Exception as error:  # noqa: BLE001  the pruner's own
                return [_dry_run_problem("pruner", pruner, "decide", error)]
            played.tell(trial, [numbers.random() for _ in study.metric])
            if time.monotonic() > deadline:
                break
    return []


def _dry_run_problem(kind: str, strategy: Any, act: str, error: Exception) -> Problem:
    found = f"{type(strategy).__name__} cannot {act} in this study: {in_one_line(error)}"
    return Problem(f"optuna: {kind}", found, f"other arguments, or another {kind}")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep back the warnings of a dry run: they are not about the study."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


def warnings_for(config: Config) -> list[str]:
    """What is right in a checked configuration, and could be better or is probably mistyped; one line each."""
    study = StudyContext.of(config)
    return [*ordinal_warnings(study), *sampler_warnings(config, study), *constraint_warnings(config, study)]


def ordinal_warnings(study: StudyContext) -> Iterator[str]:
    """Categorical parameters that look like numbers in order."""
    for parameter in study.space.parameters:
        choices = parameter.settings["choices"] if parameter.type == "categorical" else []
        if len(choices) >= _FEWEST_IN_ORDER and all(map(is_number, choices)) and choices == sorted(choices):
            yield (
                f"{key_path('optuna', 'parameters', parameter.key)}: {show(choices)} are numbers in order: "
                "the type ordinal (or log_ordinal) tells the sampler which are neighbours"
            )


def sampler_warnings(config: Config, study: StudyContext) -> Iterator[str]:
    """Where the sampler draws at random, or leaves something unused."""
    section = strategies(config).sampler
    name, arguments = section.type, section.arguments
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
    if study.constraints and name in _IGNORE_CONSTRAINTS:
        yield f"{here}: {name} samples without regard to the constraints; these do: {listing(_LEARN_CONSTRAINTS)}"


def constraint_warnings(config: Config, study: StudyContext) -> Iterator[str]:
    """Names in constraints that are no parameter or metric, and look like one, or like a word of the objective."""
    known = {*study.space.by_name, *study.metric}
    written = _words_of(config.optuna.objective)
    for index, constraint in enumerate(study.constraints):
        for name in constraint.names:
            near = did_you_mean(name, known | written, cutoff=0.75)
            if name not in known and name not in written and near is not None:
                where = key_path("optuna", "constraints", index)
                yield f"{where}: nothing is known to be named {show(name)}; did you mean {near}?"


def _words_of(objective: str | None) -> set[str]:
    """The texts and keywords in the objective's file that may be names of metrics."""
    if objective is None:
        return set()
    try:
        tree = ast.parse(Path(objective).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return set()  # reported where the objective itself is checked
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
    return {text for text in texts | keywords if text.isidentifier()}
