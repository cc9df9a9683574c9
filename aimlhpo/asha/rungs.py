"""The rungs of successive halving: at which resources trials are compared, and who is among the best there. Pure."""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ladder:
    """The rungs of one bracket, or of all of Hyperband's; resources are steps done, such as epochs.

    `first_step` is the number of a training's first report: 0, or 1 where it counts from one.
    """

    min_resource: int
    max_resource: int
    reduction_factor: int
    brackets: int = 1
    first_step: int = 0

    @property
    def resources(self) -> list[int]:
        """The resource of each rung of the lowest bracket, the end of the training not among them."""
        rungs, resource = [], self.min_resource
        while resource < self.max_resource:
            rungs.append(resource)
            resource *= self.reduction_factor
        return rungs

    @property
    def most_brackets(self) -> int:
        """With so many, trials of the last one are compared at no rung."""
        return len(self.resources) + 1

    def rungs(self, bracket: int) -> list[int]:
        """The resources of a bracket's rungs: each bracket leaves out one more of the first."""
        return self.resources[bracket:]

    def bracket(self, study_name: str, number: int) -> int:
        """A trial's bracket, drawn from its number by Hyperband's weights (Li et al. 2018), as in Optuna."""
        if self.brackets == 1:
            return 0
        weights = [self._weight(bracket) for bracket in range(self.brackets)]
        drawn = binascii.crc32(f"{study_name}_{number}".encode()) % sum(weights)
        return next(bracket for bracket in range(self.brackets) if drawn < sum(weights[: bracket + 1]))

    def _weight(self, bracket: int) -> int:
        after = self.brackets - 1 - bracket
        return math.ceil(self.brackets * math.pow(self.reduction_factor, after) / (after + 1))

    def step(self, resource: int) -> int:
        """The step of the report that reaches a rung."""
        return resource - 1 + self.first_step

    def value_at(self, resource: int, reports: Mapping[int, float]) -> float | None:
        """What a trial reported when it reached a rung; None if it has not."""
        step = self.step(resource)
        if step in reports:
            return reports[step]
        later = [at for at in reports if at > step]
        return reports[min(later)] if later else None


def ranked(values: Mapping[int, float], *, maximize: bool) -> list[int]:
    """Trial numbers, best first; of equal values the older trial, NaN last."""
    sign = -1 if maximize else 1
    return sorted(values, key=lambda number: (math.isnan(values[number]), sign * values[number], number))
