"""How the values of a parameter are stored: what Optuna searches, and the way between that and the user's values.

Optuna knows ranges of numbers and sets of scalars. Lists, and numbers in order, are searched as something that Optuna
knows; a codec translates. Reading a configuration makes these objects, so this module imports optuna only where a
distribution of Optuna's is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

STORABLE = (bool, int, float, str, type(None))


class Suggester(Protocol):
    """The part of Optuna's trial that is needed here."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class NumberRange:
    """The numbers from `low` to `high`, both included; in steps where `step` is given."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        """A range that ends between two steps ends at the lower one."""
        if self.step is not None:
            low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
            object.__setattr__(self, "high", type(self.high)((high - low) // step * step + low))

    def suggest(self, trial: Suggester, name: str) -> float:
        """A number of the range, chosen by the study's sampler."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> BaseDistribution:
        """The same as Optuna's distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class WholeNumbers(NumberRange):
    """A range of whole numbers."""

    low: int
    high: int
    step: int = 1

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class ScalarChoices:
    """A set of scalars without an order."""

    choices: tuple[Any, ...]

    def suggest(self, trial: Suggester, name: str) -> Any:
        """One of the choices, chosen by the study's sampler."""
        return trial.suggest_categorical(name, self.choices)

    def distribution(self) -> BaseDistribution:
        """The same as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)


class Codec:
    """Values that the storage holds as they are."""

    def decode(self, stored: Any) -> Any:
        """The user's value for what the storage holds."""
        return stored

    def encode(self, value: Any) -> Any:
        """What the storage holds for the user's value. Raises ValueError for a value that it cannot hold."""
        return value

    def meaning(self) -> dict[str, Any]:
        """What the distribution itself does not say of the values."""
        return {}


@dataclass(frozen=True)
class Texts(Codec):
    """Lists and mappings, stored as JSON text: a storage holds scalars only."""

    choices: Mapping[str, Any]

    def decode(self, stored: Any) -> Any:
        # Plain Optuna keeps a list as it is.
        return self.choices.get(stored, stored) if isinstance(stored, str) else stored

    def encode(self, value: Any) -> Any:
        return _json_text(value)


@dataclass(frozen=True)
class Positions(Codec):
    """Values in order, stored as their position, so that the sampler knows which are neighbours."""

    values: tuple[Any, ...]

    def decode(self, stored: Any) -> Any:
        return self.values[int(stored)]

    def encode(self, value: Any) -> Any:
        return self.values.index(value)

    def meaning(self) -> dict[str, Any]:
        return {"values": list(self.values)}


@dataclass(frozen=True)
class NearestInLog(Codec):
    """Numbers in order, stored as a point of a logarithmic scale; the nearest number is meant."""

    values: tuple[float, ...]

    def decode(self, stored: Any) -> Any:
        return min(self.values, key=lambda value: abs(math.log(value) - math.log(stored)))

    def meaning(self) -> dict[str, Any]:
        return {"values": list(self.values)}


Stored = NumberRange | ScalarChoices
Encoding = tuple[Stored, Codec]


def by_choice(values: Sequence[Any]) -> Encoding:
    """Each value is a choice without neighbours. Choices that are no scalars are stored as JSON text, and all others
    of the parameter with them.
    """
    if all(isinstance(value, STORABLE) for value in values):
        return ScalarChoices(tuple(values)), Codec()
    texts = {_json_text(value): value for value in values}
    return ScalarChoices(tuple(texts)), Texts(texts)


def by_position(values: Sequence[Any]) -> Encoding:
    """Values in order, each stored as its position from 0."""
    return WholeNumbers(0, len(values) - 1), Positions(tuple(values))


def by_log_position(values: Sequence[float]) -> Encoding:
    """Numbers in order on a logarithmic scale.

    Both ends reach half a gap further, so that the outer values are as likely as the inner ones.
    """
    if len(values) == 1:
        return by_position(values)
    low = values[0] * math.sqrt(values[0] / values[1])
    high = values[-1] * math.sqrt(values[-1] / values[-2])
    return NumberRange(low, high, log=True), NearestInLog(tuple(values))


def _json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
