"""The exact budget with many workers, over and over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import Project

SERVERS_AND_FILES = ("sqlite", "journal", "postgresql")


@pytest.mark.parametrize("kind", SERVERS_AND_FILES)
def test_budget_is_exact_with_thirty_two_workers(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str
) -> None:
    project = Project(tmp_path, storage=make_storage_url(kind), n_trials=64)
    project.run("--local", "32")
    assert project.states() == {"COMPLETE": 64}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS_AND_FILES)
@pytest.mark.parametrize("workers", [2, 8, 32])
@pytest.mark.parametrize("round_", range(3))
def test_budget_is_exact_with_any_number_of_workers(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str, workers: int, round_: int
) -> None:
    project = Project(tmp_path, storage=make_storage_url(kind), n_trials=64)
    project.run("--local", str(workers))
    assert project.states() == {"COMPLETE": 64}
