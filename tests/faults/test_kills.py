"""Workers and agents are killed at random moments: nothing finished is lost, nothing is run twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import scenarios

pytestmark = pytest.mark.faults
KINDS = ("sqlite", "journal", "postgresql")
MakeUrl = Callable[[str], str]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_workers(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.worker_kills(tmp_path, make_storage_url(kind), times=6, workers=4)
    assert verdict.clean, verdict


@pytest.mark.parametrize("kind", KINDS)
def test_killed_agents(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.agent_kills(tmp_path, make_storage_url(kind), times=2, agents=2)
    assert verdict.clean, verdict


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_killed_holder_of_a_lock(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.lock_holders(tmp_path, make_storage_url(kind), times=2)
    assert verdict.clean, verdict
    # The kernel frees the lock at once; Optuna's lock files take 30 s.
    assert verdict.resumed is None or verdict.resumed < 15


def test_agent_that_was_stopped_for_three_grace_periods(tmp_path: Path, make_storage_url: MakeUrl) -> None:
    verdict = scenarios.frozen_agents(tmp_path, make_storage_url("journal"), times=1)
    assert verdict.clean, verdict


@pytest.mark.parametrize("kind", KINDS)
def test_many_agents_start_at_once_on_an_empty_store(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.starts(tmp_path, lambda: make_storage_url(kind), times=1, agents=8)
    assert verdict.clean, verdict
