"""Whether a study's sampler, pruner and constraints can do what the study asks of them, before anything runs.

`StudyContext` says what a study asks of its sampler and pruner. `suitability_problems` checks these, and those nested
in them, against it by rules, and then runs a few trials in memory with made-up values (`dry_run`). The rules are
registered in COMBINATION_RULES, so a new one is a function and a line. `warnings_for` names what works and could be
better, or is probably mistyped.
"""

from __future__ import annotations

import ast
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    TPESampler,
)
from optuna.study import StudyDirection

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.search.building import (
    as_entry,
    check_strategy,
    class_named,
    in_one_line,
    make_pruner,
    make_sampler,
    nested_kind,
    options,
    strategies,
)
from aimlhpo.search.rung_samplers import RungSampler
from aimlhpo.space.constraints import Constraint, parse_constraints
from aimlhpo.space.parameter_types import is_number
from aimlhpo.space.search_space import Parameter, SearchSpace, combinations, grid_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

MOST_POINTS = 10_000  # combinations that are counted one by one
TRIALS = 30  # of a dry run
SECONDS = 0.5  # a dry run ends early where a sampler takes its time
_STEPS = 4  # reports of each trial
_FEWEST_IN_ORDER = 3  # choices: fewer have no order to speak of
_LEARN_CONSTRAINTS = ("TPESampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler")
_IGNORE_CONSTRAINTS = ("RandomSampler", "QMCSampler", "GridSampler", "BruteForceSampler")


@dataclass(frozen=True)
class StudyContext:
    """What a study asks of its sampler and pruner: parameters, metrics with their directions, budget, constraints."""

    space: SearchSpace
    metric: tuple[str, ...]
    directions: tuple[StudyDirection, ...]
    n_trials: int
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, config: Config) -> StudyContext:
        """From a checked configuration."""
        section = config.optuna
        directions = tuple(StudyDirection[direction.upper()] for direction in section.direction)
        constraints = parse_constraints(section.constraints)
        return cls(config.space, tuple(section.metric), directions, section.n_trials, constraints)

    def in_every_trial(self, parameter: Parameter) -> bool:
        """Whether no trial is without the parameter."""
        return all(
            dependency.holds(dependency.fixed)
            if dependency.name is None
            else dependency.type == "multiply" and self.in_every_trial(self.space.by_name[dependency.name])
            for dependency in parameter.dependencies
        )


def is_categorical(parameter: Parameter) -> bool:
    """Whether Optuna searches the parameter as a set of choices without an order."""
    return isinstance(parameter.distribution, CategoricalDistribution)


def combination_problems(kind: str, entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """What a sampler or pruner, and those nested in it, cannot do in this study. The entry must be checked."""
    cls = class_named(kind, entry["type"])
    for known, rule in COMBINATION_RULES:
        if issubclass(cls, known):
            yield from rule(entry, where, study)
    for key, parameter in options(cls).items():
        nested = nested_kind(parameter)
        if nested in ("sampler", "pruner") and entry.get(key) is not None:
            yield from combination_problems(nested, as_entry(entry[key]), key_path(where, key), study)


def constraint_problems(study: StudyContext) -> Iterator[Problem]:
    """Constraints that are given twice, and parameters in them that are not a number in every trial."""
    legal = "metrics, and parameters that are a number in every trial"
    texts = [constraint.text for constraint in study.constraints]
    for index, constraint in enumerate(study.constraints):
        where = key_path("optuna", "constraints", index)
        if constraint.text in texts[:index]:
            yield Problem(where, f"{show(constraint.text)} is there before", "each constraint once")
        for name in constraint.names:
            parameter = study.space.by_name.get(name)
            if parameter is None or name in study.metric:
                continue
            if not study.in_every_trial(parameter) and not isinstance(parameter.otherwise, int | float):
                yield Problem(where, f"{name} is not searched in every trial", legal)
            elif is_categorical(parameter):
                values = map(parameter.codec.decode, _stored_values(parameter))
                word = next((value for value in values if not isinstance(value, int | float)), None)
                if word is not None:
                    yield Problem(where, f"{name} can be {show(word)}, which is not a number", legal)


# --- One rule for each class: what it cannot do. ---


def cma_es_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    here, sampler = key_path(where, "type"), entry["type"]
    if len(study.metric) > 1:
        legal = "one metric; for several, TPESampler, NSGAIISampler, NSGAIIISampler or GPSampler"
        yield Problem(here, f"{sampler} cannot optimize {len(study.metric)} metrics", legal)
    if study.constraints:
        legal = "TPESampler, GPSampler, NSGAIISampler or NSGAIIISampler"
        yield Problem(here, f"{sampler} does not know constraints", legal)
    popsize = entry.get("popsize")
    if popsize is not None and popsize < 2:
        yield Problem(key_path(where, "popsize"), f"{popsize} is no population", "2 or more")
    ranges = [p for p in study.space.parameters if not is_categorical(p) and not p.distribution.single()]
    if study.space.parameters and not ranges:
        found = f"{sampler} searches ranges of numbers, and every parameter is categorical"
        yield Problem(here, found, "TPESampler, or GridSampler; `ordinal` makes a range of values in order")
    elif study.space.parameters and not any(map(study.in_every_trial, ranges)):
        found = f"{sampler} searches what every trial has, and every range of numbers is conditional"
        yield Problem(here, found, "TPESampler with group: true")
    first = entry.get("x0")
    if isinstance(first, Mapping):
        for name, value in first.items():
            yield from _value_problems(name, [value], key_path(where, "x0"), study)
        missing = [p.name for p in ranges if p.name not in first]
        if missing:
            yield Problem(key_path(where, "x0"), f"has no value for {listing(missing)}", "a value for every range")


def gp_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    parameters = study.space.parameters
    if parameters and not any(study.in_every_trial(p) and not p.distribution.single() for p in parameters):
        found = f"{entry['type']} searches what every trial has, and every parameter is conditional"
        yield Problem(key_path(where, "type"), found, "TPESampler with group: true")


def rung_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    if len(study.metric) > 1 or study.constraints:
        found = f"{entry['type']} compares trials by one reported metric, and knows no constraints"
        yield Problem(key_path(where, "type"), found, "TPESampler, for several metrics and for constraints")


def brute_force_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    stored = {parameter.name: parameter.distribution for parameter in study.space.parameters}
    endless = [n for n, d in stored.items() if isinstance(d, FloatDistribution) and d.step is None and not d.single()]
    if endless:
        found = f"{entry['type']} tries every value, and {listing(endless)} has no step"
        yield Problem(key_path(where, "type"), found, "`step` in the settings of each float")
        return
    values = {p.name: [p.codec.decode(stored) for stored in _stored_values(p)] for p in study.space.parameters}
    if math.prod(map(len, values.values())) <= MOST_POINTS:
        points = sum(1 for _ in combinations(study.space.in_order, values))
        yield from _budget_problems(points, study, "the search space")


def grid_sampler_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """A grid must have values for every parameter and for no other, each value once."""
    grid, where = entry["search_space"], key_path(where, "search_space")
    problems: list[Problem] = []
    for name, values in grid.items():
        problems += _value_problems(name, values, where, study)
        if not values:
            problems.append(Problem(key_path(where, name), "is an empty list", "a list with at least one value"))
        shown = [show(value) for value in values]
        repeated = listing(dict.fromkeys(value for value in shown if shown.count(value) > 1))
        if repeated and name in study.space.by_name:
            found = f"{repeated} is listed twice, and its combinations would run twice"
            problems.append(Problem(key_path(where, name), found, "each value once"))
    missing = [name for name in study.space.by_name if name not in grid]
    if missing:
        problems.append(Problem(where, f"has no values for {listing(missing)}", "a list of values for every parameter"))
    yield from problems
    if not problems:
        yield from _budget_problems(math.prod(map(len, grid.values())), study, "the grid")


def partial_fixed_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    for name, value in entry["fixed_params"].items():
        yield from _value_problems(name, [value], key_path(where, "fixed_params"), study)


def nsga_iii_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    points, metrics = entry.get("reference_points"), len(study.metric)
    rows = points if isinstance(points, list) else []
    if any(not isinstance(row, list) or len(row) != metrics for row in rows) or points == []:
        found = f"{show(points)} does not fit {metrics} metrics"
        yield Problem(key_path(where, "reference_points"), found, f"a list of lists of {metrics} numbers")


def hyperband_problems(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    smallest, largest = entry.get("min_resource", 1), entry.get("max_resource", "auto")
    factor = entry.get("reduction_factor", 3)
    if smallest < 1:
        yield Problem(key_path(where, "min_resource"), f"{show(smallest)} is less than one step", "1 or more")
    elif isinstance(largest, int) and largest < smallest:
        found = f"{largest} is less than min_resource, {smallest}"
        yield Problem(key_path(where, "max_resource"), found, f"{smallest} or more")
    if factor < 2:
        yield Problem(key_path(where, "reduction_factor"), f"{show(factor)} reduces nothing", "2 or more")


CombinationRule = Callable[[Mapping[str, Any], str, StudyContext], Iterator[Problem]]
COMBINATION_RULES: tuple[tuple[type, CombinationRule], ...] = (
    (CmaEsSampler, cma_es_problems),
    (GPSampler, gp_problems),
    (RungSampler, rung_problems),
    (BruteForceSampler, brute_force_problems),
    (GridSampler, grid_sampler_problems),
    (PartialFixedSampler, partial_fixed_problems),
    (NSGAIIISampler, nsga_iii_problems),
    (HyperbandPruner, hyperband_problems),
)
"""A class, and what it and its subclasses cannot do. A rule gets the entry, its key path and the study."""


def _value_problems(name: str, values: Sequence[Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """A name that no declared parameter has, or values, in the user's words, that are not among the parameter's."""
    parameter = study.space.by_name.get(name)
    if parameter is None:
        if study.space.by_name:
            near = did_you_mean(name, study.space.by_name)
            yield Problem(key_path(where, name), "no parameter of this name", listing(study.space.by_name), near)
        return
    stored = parameter.distribution
    legal = "a value of the parameter"
    if isinstance(stored, CategoricalDistribution):
        legal = listing(show(parameter.codec.decode(choice)) for choice in stored.choices)
    elif parameter.codec.meaning():
        legal = listing(map(show, parameter.codec.meaning()["values"]))
    elif isinstance(stored, IntDistribution | FloatDistribution):
        legal = f"from {stored.low} to {stored.high}" + (f" in steps of {stored.step}" if stored.step else "")
    for value in values:
        try:
            inside = stored._contains(stored.to_internal_repr(parameter.codec.encode(value)))
        except (ValueError, TypeError):
            inside = False
        if not inside:
            yield Problem(key_path(where, name), f"{show(value)} is not a value of {name}", legal)


def _budget_problems(points: int, study: StudyContext, what: str) -> Iterator[Problem]:
    if study.space.parameters and study.n_trials > points:
        found = f"{study.n_trials} is more than the {points} combinations of {what}: the others would repeat them"
        yield Problem("optuna: n_trials", found, f"up to {points}")


def _stored_values(parameter: Parameter) -> list[Any]:
    """What the storage may hold for a parameter that has no endless range; no more than MOST_POINTS + 1 values."""
    stored = parameter.distribution
    if isinstance(stored, CategoricalDistribution):
        return list(stored.choices)
    if isinstance(stored, IntDistribution):
        return list(range(stored.low, stored.high + 1, stored.step))[: MOST_POINTS + 1]
    assert isinstance(stored, FloatDistribution)
    steps = round((stored.high - stored.low) / stored.step) if stored.step else 0
    return [stored.low + position * (stored.step or 0) for position in range(min(steps, MOST_POINTS) + 1)]


# --- all of it, and a dry run ---


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
