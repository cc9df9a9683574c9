"""The page of all samplers and pruners: each class stands there with a line that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.config.yaml import parse_yaml
from aimlhpo.search.building import strategy_problems
from aimlhpo.search.registry import classes

PAGE = Path(__file__).resolve().parents[2] / "docs/strategies.md"
ENTRIES: list[dict[str, Any]] = [
    parse_yaml(line, "docs/strategies.md") for line in re.findall(r"^\| `(\{type: .*?\})` \|", PAGE.read_text(), re.M)
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["type"])
def test_each_line_works(entry: dict[str, Any]) -> None:
    kind = "sampler" if entry["type"].endswith("Sampler") else "pruner"
    assert strategy_problems(kind, entry, "here") == []


def test_every_class_is_there() -> None:
    assert {entry["type"] for entry in ENTRIES} == {*classes("sampler"), *classes("pruner")}
