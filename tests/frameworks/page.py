"""The objectives of docs/frameworks.md, and a study in which they show that they train and that they are pruned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.project import Project

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"
FIRST, SECOND, DIVERGING = 0.05, 0.02, 50.0
ENDINGS = {FIRST: "COMPLETE", SECOND: "COMPLETE", DIVERGING: "PRUNED"}
"""The state in which a trial ends, by its learning rate."""

STUDY: dict[str, Any] = {
    "n_trials": 3,
    "sampler": {"type": "GridSampler", "search_space": {"lr": list(ENDINGS)}},
    "parameters": {"lr": {"type": "categorical", "settings": {"name": "lr", "choices": list(ENDINGS)}}},
    "pruner": {"type": "ThresholdPruner", "upper": 50.0},
    "pruning": "strict",
    "max_consecutive_failures": 1,
}


def section(title: str) -> str:
    """The objective of a section of the page."""
    found = re.search(rf"^## {title}\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def write_model(project: Project) -> None:
    """The model configuration that the page's objectives read."""
    project.model.write_text(yaml.safe_dump({"lr": FIRST, "epochs": 2}))
