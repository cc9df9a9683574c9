"""Seeds the random states inside a sampler anew for each trial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.samplers._lazy_random_state import LazyRandomState


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next."""
    for index, state in enumerate(_random_states(sampler, set())):
        word = np.random.SeedSequence([seed, index]).generate_state(1)[0]
        (state.rng if isinstance(state, LazyRandomState) else state).seed(int(word))


def _random_states(value: Any, seen: set[int]) -> Iterator[LazyRandomState | np.random.RandomState]:
    """The random states below an object, each once, in the order of its attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, LazyRandomState | np.random.RandomState):
        yield value
        return
    for part in _parts(value):
        yield from _random_states(part, seen)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    ours = isinstance(value, optuna.samplers.BaseSampler) or type(value).__module__.startswith("optuna.samplers")
    return list(vars(value).values()) if ours and hasattr(value, "__dict__") else []
