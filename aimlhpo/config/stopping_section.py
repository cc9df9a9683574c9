"""The values of the keys that say when a study has had enough."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.values import Count, Section, as_number, illegal, in_editors
from aimlhpo.suggestions import show

TIMEOUT_SCOPES = ("submission", "study")
AT_STOP = ("finish", "prune")
_NUMBER = {"type": "number"}


def _at_least_zero(value: Any) -> float:
    return _limited(value, 0.0, "a number, 0 or more")


def _hours(value: Any) -> float:
    number = _limited(value, 0.0, "hours, more than 0")
    if number == 0:
        raise illegal(f"{show(value)} is too small", "hours, more than 0")
    return number


def _limited(value: Any, least: float, legal: str) -> float:
    number = as_number(value)
    if number is None:
        raise illegal(f"{show(value)} is not a number", legal)
    if number < least:
        raise illegal(f"{show(value)} is too small", legal)
    return float(number)


def _targets(value: Any) -> float | dict[str, float]:
    legal = "a number, or metric: number pairs"
    if not isinstance(value, dict):
        return _target(value, "", legal)
    if not value:
        raise illegal("is empty", legal)
    return {str(name): _target(one, f"{name} is ", legal) for name, one in value.items()}


def _target(value: Any, prefix: str, legal: str) -> float:
    number = as_number(value)
    if number is None:
        raise illegal(f"{prefix}{show(value)}, not a number" if prefix else f"{show(value)} is not a number", legal)
    return float(number)


NotNegative = Annotated[float, BeforeValidator(_at_least_zero), in_editors({**_NUMBER, "minimum": 0})]
Hours = Annotated[float, BeforeValidator(_hours), in_editors({**_NUMBER, "exclusiveMinimum": 0})]
Targets = Annotated[
    float | dict[str, float],
    BeforeValidator(_targets),
    in_editors(_NUMBER, {"type": "object", "additionalProperties": _NUMBER, "minProperties": 1}),
]


class PatienceSection(Section):
    """How long to wait for a better trial."""

    trials: Count = Field(description="Finished trials in a row without a better one that end the study.")
    min_delta: NotNegative = Field(
        default=0.0,
        description="By how much a value must be better than the best before, at least, to count as better.",
    )


def _patience(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if not isinstance(as_number(value), int):
        raise illegal(f"{show(value)} is not a whole number", "a number of trials, or trials: N and min_delta: X")
    return {"trials": value}


Patience = Annotated[PatienceSection, BeforeValidator(_patience)]
