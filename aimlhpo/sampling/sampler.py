"""The study's sampler: a grid's own, or as the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.grid import GridSampler, declared_grid
from aimlhpo.sampling.bounded import bounded
from aimlhpo.space import SearchSpace
from aimlhpo.strategies import make_sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from aimlhpo.config import Config


def sampler_of(config: Config, seed: int | None) -> BaseSampler:
    """The sampler for a study with that configuration. Raises ConfigError.

    `seed` is the study's: agents share what it decides, such as the order of a grid or a quasi-random sequence.
    """
    if declared_grid(config) is not None:
        return GridSampler()
    sampler = make_sampler(config.optuna.sampler, seed, SearchSpace.from_config(config).encode)
    return bounded(sampler, config.optuna.sampler_sees)
