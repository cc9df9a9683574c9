"""`sampler`, `pruner` and `terminator`: each a class by its name, with its keyword arguments."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from aimlhpo.config.values import Section, Text, illegal
from aimlhpo.suggestions import show


class StrategySection(Section):
    """A sampler or pruner by its class name in Optuna; every other key is a keyword argument of the class."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Text = Field(description="Class name in Optuna.")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the class."""
        return dict(self.__pydantic_extra__ or {})


class PrunerSection(StrategySection):
    """A pruner, and the metric that it goes by."""

    metric: Text | None = Field(default=None, description="Which of several metrics trials report, and are pruned by.")


def _strategy(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": value}
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "type: CLASS, and keyword arguments of the class")
    return value


Strategy = Annotated[StrategySection, BeforeValidator(_strategy)]
Pruner = Annotated[PrunerSection, BeforeValidator(_strategy)]
