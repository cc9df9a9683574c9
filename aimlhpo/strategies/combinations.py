"""Samplers and pruners that cannot work with a study's parameters, metrics or budget: told before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.pruners import HyperbandPruner
from optuna.samplers import (
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    PartialFixedSampler,
)

from aimlhpo.errors import Problem
from aimlhpo.strategies.building import as_entry
from aimlhpo.strategies.catalogue import nested_kind, options
from aimlhpo.strategies.finite import count, grid_problems, value_problems
from aimlhpo.strategies.naming import class_named
from aimlhpo.strategies.situation import Situation, is_endless
from aimlhpo.suggestions import key_path, listing, show

Rule = Callable[[Mapping[str, Any], str, Situation], Iterator[Problem]]
_SEVERAL_METRICS = "one metric; for several, TPESampler, NSGAIISampler, NSGAIIISampler or GPSampler"
_CONSTRAINED = "TPESampler, GPSampler, NSGAIISampler or NSGAIIISampler"


def combination_problems(kind: str, entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    """What a checked strategy cannot do in this study, and what those inside it cannot."""
    cls = class_named(kind, entry["type"])
    for known, rule in _RULES:
        if issubclass(cls, known):
            yield from rule(entry, where, study)
    for key, parameter in options(cls).items():
        nested = nested_kind(parameter)
        if nested in ("sampler", "pruner") and entry.get(key) is not None:
            yield from combination_problems(nested, as_entry(entry[key]), key_path(where, key), study)


def _cma_es(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    here, name = key_path(where, "type"), entry["type"]
    if len(study.metric) > 1:
        yield Problem(here, f"{name} cannot optimize {len(study.metric)} metrics", _SEVERAL_METRICS)
    if study.constraints:
        yield Problem(here, f"{name} does not know constraints", _CONSTRAINED)
    popsize = entry.get("popsize")
    if popsize is not None and popsize < 2:
        yield Problem(key_path(where, "popsize"), f"{popsize} is no population", "2 or more")
    if study.space.parameters and not study.ranges:
        found = f"{name} searches ranges of numbers, and every parameter is categorical"
        yield Problem(here, found, "TPESampler, or GridSampler; `ordinal` makes a range of values in order")
    elif study.space.parameters and not any(map(study.in_every_trial, study.ranges)):
        found = f"{name} searches what every trial has, and every range of numbers is conditional"
        yield Problem(here, found, "TPESampler with group: true")
    yield from value_problems(entry.get("x0"), key_path(where, "x0"), study)
    yield from _start(entry, where, study)


def _start(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    """The first point of CMA-ES must have a value for every range."""
    given = entry.get("x0")
    missing = [p.name for p in study.ranges if given is not None and p.name not in given]
    if missing:
        yield Problem(key_path(where, "x0"), f"has no value for {listing(missing)}", "a value for every range")


def _gp(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    parameters = study.space.parameters
    if parameters and not any(study.in_every_trial(p) and not p.distribution.single() for p in parameters):
        found = f"{entry['type']} searches what every trial has, and every parameter is conditional"
        yield Problem(key_path(where, "type"), found, "TPESampler with group: true")


def _brute_force(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    endless = [parameter.name for parameter in study.space.parameters if is_endless(parameter)]
    if endless:
        found = f"{entry['type']} tries every value, and {listing(endless)} has no step"
        yield Problem(key_path(where, "type"), found, "`step` in the settings of each float")
        return
    yield from _budget(count(study.space), study, "the search space")


def _grid(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    problems = list(grid_problems(entry["search_space"], key_path(where, "search_space"), study))
    yield from problems
    if not problems:
        points = 1
        for values in entry["search_space"].values():
            points *= len(values)
        yield from _budget(points, study, "the grid")


def _budget(points: int | None, study: Situation, what: str) -> Iterator[Problem]:
    if points is not None and study.space.parameters and study.n_trials > points:
        found = f"{study.n_trials} is more than the {points} combinations of {what}: the others would repeat them"
        yield Problem("optuna: n_trials", found, f"up to {points}")


def _partial_fixed(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    yield from value_problems(entry["fixed_params"], key_path(where, "fixed_params"), study)


def _nsga_iii(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    points, metrics = entry.get("reference_points"), len(study.metric)
    rows = points if isinstance(points, list) else []
    if any(not isinstance(row, list) or len(row) != metrics for row in rows) or points == []:
        found = f"{show(points)} does not fit {metrics} metrics"
        yield Problem(key_path(where, "reference_points"), found, f"a list of lists of {metrics} numbers")


def _hyperband(entry: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    smallest, largest = entry.get("min_resource", 1), entry.get("max_resource", "auto")
    factor = entry.get("reduction_factor", 3)
    if smallest < 1:
        yield Problem(key_path(where, "min_resource"), f"{show(smallest)} is less than one step", "1 or more")
    elif isinstance(largest, int) and largest < smallest:
        found = f"{largest} is less than min_resource, {smallest}"
        yield Problem(key_path(where, "max_resource"), found, f"{smallest} or more")
    if factor < 2:
        yield Problem(key_path(where, "reduction_factor"), f"{show(factor)} reduces nothing", "2 or more")


_RULES: tuple[tuple[type, Rule], ...] = (
    (CmaEsSampler, _cma_es),
    (GPSampler, _gp),
    (BruteForceSampler, _brute_force),
    (GridSampler, _grid),
    (PartialFixedSampler, _partial_fixed),
    (NSGAIIISampler, _nsga_iii),
    (HyperbandPruner, _hyperband),
)
