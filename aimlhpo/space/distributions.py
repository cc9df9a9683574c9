"""From a parameter's kind and settings to Optuna's distribution, and between stored values and the user's."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from aimlhpo.space.parameter_types import DOMAINS, as_number

STORABLE = (bool, int, float, str, type(None))


class Codec:
    """Values that the storage holds as they are."""

    def decode(self, stored: Any) -> Any:
        """The user's value for what the storage holds."""
        return stored

    def encode(self, value: Any) -> Any:
        """What the storage holds for the user's value."""
        return value

    def meaning(self) -> dict[str, Any]:
        """What the distribution itself does not say of the values."""
        return {}


@dataclass(frozen=True)
class Texts(Codec):
    """Lists and mappings, stored as JSON text: a storage holds scalars only."""

    choices: Mapping[str, Any]

    def decode(self, stored: Any) -> Any:
        return self.choices.get(stored, stored)

    def encode(self, value: Any) -> Any:
        return json_text(value)


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


def json_text(value: Any) -> str:
    """How a choice is stored that is not a scalar, and its neighbours with it."""
    return json.dumps(value, sort_keys=True, default=str)


def distribution(kind: str, settings: Mapping[str, Any]) -> tuple[BaseDistribution, Codec]:
    """Optuna's distribution and the way from and to the user's values. The settings must be checked."""
    if kind == "random":
        drawn = settings["distribution"]
        return distribution(drawn["type"], drawn["settings"])
    values = DOMAINS[kind].values
    if values is None:
        return _numeric(kind, settings), Codec()
    if kind in ("categorical", "constant", "single", "multiple"):
        return _categorical(values(settings))
    if kind == "log_ordinal":
        return _log_ordinal([as_number(value) or 0 for value in values(settings)])
    positions = tuple(values(settings))
    return IntDistribution(0, len(positions) - 1), Positions(positions)


def _numeric(kind: str, settings: Mapping[str, Any]) -> BaseDistribution:
    low, high = as_number(settings["low"]) or 0, as_number(settings["high"]) or 0
    step = as_number(settings.get("q" if kind == "discrete_uniform" else "step"))
    log = kind in ("loguniform", "log_int") or bool(settings.get("log", False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a range that ends between two steps ends at the lower one
        if DOMAINS[kind].number is int:
            return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        return FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step))


def _categorical(choices: list[Any]) -> tuple[BaseDistribution, Codec]:
    if all(isinstance(choice, STORABLE) for choice in choices):
        return CategoricalDistribution(choices), Codec()
    texts = {json_text(choice): choice for choice in choices}
    return CategoricalDistribution(list(texts)), Texts(texts)


def _log_ordinal(values: list[float]) -> tuple[BaseDistribution, Codec]:
    """Both ends reach half a gap further, so that the outer values are as likely as the inner ones."""
    if len(values) == 1:
        return IntDistribution(0, 0), Positions(tuple(values))
    low = values[0] * math.sqrt(values[0] / values[1])
    high = values[-1] * math.sqrt(values[-1] / values[-2])
    return FloatDistribution(low, high, log=True), NearestInLog(tuple(values))
