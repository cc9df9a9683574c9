"""How the history of a trial that is interrupted again and again is kept: `fruitless` decides when it fails."""

from __future__ import annotations

from typing import Any

import pytest

from aimlhpo.ledger.completion import STOPPED_BY_USER, interruption_history


def interrupt(causes: list[str], progress: list[list[float]]) -> dict[str, Any]:
    history: dict[str, Any] | None = None
    for cause, made in zip(causes, progress, strict=True):
        history = interruption_history(history, cause, 10.0, made)
    assert history is not None
    return history


def test_attempts_and_seconds_add_up() -> None:
    history = interrupt(["walltime", "preempted"], [[1, 0.0], [2, 0.0]])
    assert (history["attempts"], history["seconds"], history["cause"]) == (2, 20.0, "preempted")


@pytest.mark.parametrize("progress", [[[n, 0.0] for n in range(1, 21)], [[0, float(n)] for n in range(1, 21)]])
def test_interruptions_after_new_reports_or_checkpoints_are_not_fruitless(progress: list[list[float]]) -> None:
    assert interrupt(["walltime"] * 20, progress)["fruitless"] == 0


def test_interruptions_without_progress_are_counted() -> None:
    assert interrupt(["node failure"] * 3, [[0, 0.0]] * 3)["fruitless"] == 3


def test_stops_by_the_user_do_not_count() -> None:
    assert interrupt([STOPPED_BY_USER] * 20, [[0, 0.0]] * 20)["fruitless"] == 0
