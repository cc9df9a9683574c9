"""Workers and agents are killed at random moments: nothing finished is lost, nothing is run twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import scenarios
from tests.faults.crew import Crew, begun
from tests.waiting import wait_until

pytestmark = pytest.mark.faults
KINDS = ("sqlite", "journal", "postgresql")
MakeUrl = Callable[[str], str]


@pytest.mark.parametrize("kind", [*KINDS, "mysql"])
def test_killed_workers(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.worker_kills(tmp_path, make_storage_url(kind), times=6, workers=4)
    assert verdict.clean, verdict
    assert verdict.injected == 6


@pytest.mark.parametrize("kind", KINDS)
def test_killed_agents(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.agent_kills(tmp_path, make_storage_url(kind), times=2, agents=2)
    assert verdict.clean, verdict


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_killed_holder_of_a_lock(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.lock_holders(tmp_path, make_storage_url(kind), times=2)
    assert verdict.clean, verdict
    assert verdict.injected == 2
    # The kernel frees the lock at once; Optuna's lock files take 30 s.
    assert max(verdict.resumed, default=0) < 25


def test_agent_that_was_stopped_for_three_grace_periods(tmp_path: Path, make_storage_url: MakeUrl) -> None:
    verdict = scenarios.frozen_agents(tmp_path, make_storage_url("journal"), times=1, grace=6.0)
    assert verdict.clean, verdict
    assert verdict.injected == 1


@pytest.mark.parametrize("kind", KINDS)
def test_many_agents_start_at_once_on_an_empty_store(tmp_path: Path, make_storage_url: MakeUrl, kind: str) -> None:
    verdict = scenarios.starts(tmp_path, lambda: make_storage_url(kind), times=1, agents=6)
    assert verdict.clean, verdict


def test_worker_that_is_killed_again_and_again_before_it_is_ready(tmp_path: Path) -> None:
    with Crew(tmp_path, 1, 2, n_trials=8) as crew:
        crew.hold(0)
        crew.running(2)
        for _ in range(5):
            before = set(crew.workers)
            crew.kill(max(before, key=begun))
            wait_until(lambda known=before: bool(set(crew.workers) - known), "a new worker")  # type: ignore[misc]
        crew.let_end()
        assert crew.exit_codes() == [0], crew.tail()
    assert crew.project.states()["COMPLETE"] == 8
