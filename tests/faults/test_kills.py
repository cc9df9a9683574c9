"""Workers and agents are killed at random moments: nothing finished is lost, nothing is run twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import scenarios

pytestmark = pytest.mark.faults
KINDS = ("sqlite", "journal", "postgresql")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_workers(tmp_path: Path, make_storage_url: Callable[[str], str], kind: str) -> None:
    verdict = scenarios.worker_kills(tmp_path, make_storage_url(kind), times=8, workers=4)
    assert verdict.clean, verdict


@pytest.mark.parametrize("kind", KINDS)
def test_killed_agents(tmp_path: Path, make_storage_url: Callable[[str], str], kind: str) -> None:
    verdict = scenarios.agent_kills(tmp_path, make_storage_url(kind), times=3, agents=2)
    assert verdict.clean, verdict
