"""Seeds the random states inside a sampler anew for each trial."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.samplers._lazy_random_state import LazyRandomState

State = LazyRandomState | np.random.RandomState | np.random.Generator | random.Random
_STATES = (LazyRandomState, np.random.RandomState, np.random.Generator, random.Random)


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next.

    A sampler whose random states are out of sight reseeds itself, so that agents at least differ.
    """
    states = list(_random_states(sampler, package_of(sampler), set()))
    for index, state in enumerate(states):
        _seed(state, int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
    if not states:
        sampler.reseed_rng()


def package_of(value: object) -> str:
    """The package whose objects are a sampler's own."""
    return type(value).__module__.partition(".")[0]


def _seed(state: State, word: int) -> None:
    if isinstance(state, np.random.Generator):
        state.bit_generator.state = type(state.bit_generator)(word).state
    else:
        (state.rng if isinstance(state, LazyRandomState) else state).seed(word)


def _random_states(value: Any, package: str, seen: set[int]) -> Iterator[State]:
    """The random states below an object, each once, in the order of its attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, _STATES):
        yield value
        return
    for part in _parts(value, package):
        yield from _random_states(part, package, seen)


def _parts(value: Any, package: str) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    ours = isinstance(value, optuna.samplers.BaseSampler) or type(value).__module__.startswith("optuna.samplers")
    own = package not in ("optuna", "aimlhpo", "builtins") and package_of(value) == package
    return list(vars(value).values()) if (ours or own) and hasattr(value, "__dict__") else []
