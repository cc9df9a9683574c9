"""When a trial that is interrupted again and again is given up."""

from __future__ import annotations

from typing import Any

import pytest

from aimlhpo.ledger import completion


def interrupt(causes: list[str], progress: list[list[float]]) -> dict[str, Any]:
    history: dict[str, Any] | None = None
    for cause, made in zip(causes, progress, strict=True):
        history = completion.interruption_history(history, cause, 10.0, made)
    assert history is not None
    return history


def test_attempts_and_seconds_add_up() -> None:
    history = interrupt(["walltime", "preempted"], [[1, 0.0], [2, 0.0]])
    assert (history["attempts"], history["seconds"], history["cause"]) == (2, 20.0, "preempted")


@pytest.mark.parametrize("progress", [[[n, 0.0] for n in range(1, 21)], [[0, float(n)] for n in range(1, 21)]])
def test_trial_that_gets_on_is_never_given_up(progress: list[list[float]]) -> None:
    assert not completion.too_many_interruptions(interrupt(["walltime"] * 20, progress), 5)


def test_trial_that_gets_nowhere_is_given_up() -> None:
    most = 3
    assert not completion.too_many_interruptions(
        interrupt(["node failure"] * (most - 1), [[0, 0.0]] * (most - 1)), most
    )
    history = interrupt(["node failure"] * most, [[0, 0.0]] * most)
    assert completion.too_many_interruptions(history, most)
    assert completion.interruption_record(history)["cause"] == "node failure"


def test_stops_by_the_user_do_not_count() -> None:
    assert not completion.too_many_interruptions(interrupt([completion.STOPPED_BY_USER] * 20, [[0, 0.0]] * 20), 5)
