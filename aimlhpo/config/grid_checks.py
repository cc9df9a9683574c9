"""What is wrong with a full grid, and its number of trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aimlhpo.config.dependencies import listed
from aimlhpo.config.grid import MOST_PERMUTATIONS, grid_of, is_grid, size
from aimlhpo.config.grid_domains import GRID_DOMAINS
from aimlhpo.config.space_checks import Declared, declared, search_space_problems
from aimlhpo.config.values import as_number
from aimlhpo.errors import Problem
from aimlhpo.suggestions import key_path, show

UNLISTED = "a parameter with finitely many values, or no `random` parameters in this study"


def fill_n_trials(optuna: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Without `n_trials`, a grid has as many trials as permutations; in place."""
    found = declared(optuna.get("parameters"), model)
    if optuna.get("n_trials") is not None or not any(_is_of_grid(parameter) for parameter in found):
        return
    problems = [*search_space_problems(optuna, model), *_own_problems(optuna, found)]
    grid = None if problems else grid_of(optuna, model)
    if grid is not None:
        optuna["n_trials"] = grid.permutations
    elif problems:
        optuna["n_trials"] = 1  # nothing will run: the problems alone are told, not that the number is missing


def grid_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Mistakes that a search space has as a grid; it must be correct otherwise."""
    found = declared(optuna.get("parameters"), model)
    problems = _own_problems(optuna, found)
    if problems or not is_grid(found):
        return problems
    grid = grid_of(optuna, model)
    n_trials = as_number(optuna.get("n_trials"))
    if grid is not None and n_trials is not None and n_trials > grid.permutations:
        what = f"{show(n_trials)} is more than the {grid.permutations} permutations of the grid"
        legal = f"up to {grid.permutations}; or leave it out, and all of them run"
        problems.append(Problem(key_path("optuna", "n_trials"), what, legal))
    return problems


def _is_of_grid(parameter: Declared) -> bool:
    kind = parameter.entry.get("type")
    return isinstance(kind, str) and kind in GRID_DOMAINS


def _own_problems(optuna: Mapping[str, Any], found: Sequence[Declared]) -> list[Problem]:
    if not any(_is_of_grid(parameter) for parameter in found):
        return []
    if not is_grid(found):
        return list(_random_in_no_grid(found))
    return [*_nothing_else(optuna), *_random_conditions(found), *_size(found)]


def _random_in_no_grid(found: Sequence[Declared]) -> Iterator[Problem]:
    """`random` means so many values: a sampler would not stop at them."""
    infinite = [p for p in found if p.sound and not size(p)]
    for parameter in found:
        if parameter.entry.get("type") == "random" and infinite:
            what = f"is a grid's type, and {infinite[0].key} has infinitely many values, which makes no grid"
            yield Problem(key_path(*parameter.where, parameter.words[0]), what, UNLISTED)


def _nothing_else(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Every combination is run, so there is nothing to choose."""
    if optuna.get("sampler") is not None:
        what = "a grid runs every combination, so that no sampler chooses any"
        yield Problem(key_path("optuna", "sampler"), what, "no sampler; or other types than the grid's")
    for key in ("enqueue", "enqueue_default"):
        if optuna.get(key):
            yield Problem(key_path("optuna", key), "a grid queues every combination itself", f"no {key}")
    if optuna.get("warm_start_from"):
        what = "a grid runs every combination, so that nothing is learned from other trials"
        yield Problem(key_path("optuna", "warm_start_from"), what, "no warm_start_from; or other types than the grid's")


def _random_conditions(found: Sequence[Declared]) -> Iterator[Problem]:
    """Which combinations there are must be known before values are drawn."""
    drawn = {name for p in found if p.entry["type"] == "random" for name in (p.key, p.name)}
    for parameter in found:
        for entry in listed(parameter.entry.get("dependency")):
            spelled = str(entry.get("on")) if isinstance(entry, Mapping) else ""
            names = {spelled, spelled.replace(".", ":"), spelled.replace(".", ":").removeprefix("model:")}
            if isinstance(entry, Mapping) and entry.get("type") == "optimize_iff" and names & drawn:
                where = key_path(*parameter.where, "dependency", "on")
                what = f"{spelled} is drawn at random, so that the number of permutations would not be known"
                yield Problem(where, what, "a parameter of another type")


def _size(found: Sequence[Declared]) -> Iterator[Problem]:
    bound = math.prod(map(size, found))
    if bound > MOST_PERMUTATIONS:
        what = f"make a grid of {bound} permutations"
        yield Problem(key_path("optuna", "parameters"), what, f"up to {MOST_PERMUTATIONS}")
