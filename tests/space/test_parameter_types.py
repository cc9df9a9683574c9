"""The registry of parameter types: one more type needs one class and one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import optuna

from aimlhpo.check.json_schema import json_schema, reference
from aimlhpo.errors import Problem
from aimlhpo.space.distributions import Encoding, by_position
from aimlhpo.space.parameter_types import PARAMETER_TYPES, ParameterType

if TYPE_CHECKING:
    import pytest

    from tests.files import Files


class FirstNumbers(ParameterType):
    """The whole numbers from 1 to `count`."""

    meaning = "a whole number from 1 to `count`"
    required = ("count",)

    def problems(self, settings: Mapping[str, Any]) -> Iterator[Problem]:
        if settings["count"] < 1:
            yield Problem("count", f"{settings['count']} is too few", "1 or more")

    def listed(self, settings: Mapping[str, Any]) -> list[Any]:
        return list(range(1, settings["count"] + 1))

    def encoding(self, settings: Mapping[str, Any]) -> Encoding:
        return by_position(self.listed(settings))


def test_a_type_in_the_registry_is_checked_searched_and_described(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARAMETER_TYPES, "first_numbers", FirstNumbers())
    wrong = files.write("parameters: {x: {type: first_numbers, settings: {count: 0}}}").problems()
    assert str(wrong["optuna: parameters: x: settings: count"]).endswith("0 is too few\n    legal: 1 or more")
    space = files.write("parameters: {x: {type: first_numbers, settings: {count: 3}}}").load().space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert {space.suggest(study.ask())["x"] for _ in range(30)} == {1, 2, 3}
    assert "| `first_numbers` |" in reference()
    assert "first_numbers" in json_schema()["$defs"]["ParameterSection"]["properties"]["type"]["enum"]
