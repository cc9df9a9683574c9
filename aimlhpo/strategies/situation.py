"""What a study asks of its sampler and pruner: parameters, metrics, budget, constraints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection

from aimlhpo.constraints import Constraint, parse_all
from aimlhpo.space import Parameter, SearchSpace

if TYPE_CHECKING:
    from aimlhpo.config import Config


@dataclass(frozen=True)
class Situation:
    """`metric` are the study's metrics; `n_trials` is its budget."""

    space: SearchSpace
    metric: tuple[str, ...]
    directions: tuple[StudyDirection, ...]
    n_trials: int
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Situation:
        """From a checked configuration."""
        options = config.optuna
        space = SearchSpace.from_config(config)
        constraints = parse_all(options.constraints)
        directions = tuple(StudyDirection[direction.upper()] for direction in options.direction)
        return cls(space, tuple(options.metric), directions, options.n_trials, constraints)

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The declared parameters; an objective may suggest others."""
        return {parameter.name: parameter for parameter in self.space.parameters}

    @property
    def ranges(self) -> list[Parameter]:
        """Parameters that are a range of numbers, with more than one value."""
        found = self.space.parameters
        return [p for p in found if not is_categorical(p) and not p.distribution.single()]

    def in_every_trial(self, parameter: Parameter) -> bool:
        """Whether no trial is without the parameter."""
        return all(
            link.dependency.holds(link.fixed)
            if link.name is None
            else link.dependency.type == "multiply" and self.in_every_trial(self.by_name[link.name])
            for link in parameter.links
        )


def is_categorical(parameter: Parameter) -> bool:
    return isinstance(parameter.distribution, CategoricalDistribution)


def is_endless(parameter: Parameter) -> bool:
    """Whether a parameter has more values than can be counted."""
    stored = parameter.distribution
    return isinstance(stored, FloatDistribution) and stored.step is None and not stored.single()


def fits(parameter: Parameter, value: object) -> bool:
    """Whether a value in the user's words is one of the parameter's."""
    stored = parameter.distribution
    try:
        return stored._contains(stored.to_internal_repr(parameter.codec.encode(value)))
    except (ValueError, TypeError):
        return False
