"""What the tests do otherwise than `make chaos`: verdicts must not depend on how busy the machine is."""

from __future__ import annotations

import pytest

from tests.faults.crew import Crew


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that live are never taken for dead, those that died at once."""
    monkeypatch.setattr(Crew, "hurried", True)
