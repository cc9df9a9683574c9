"""Failures in a row are those after the last success, however the trials come in."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.storage.trials import ATTRIBUTE, History

START = datetime(2026, 1, 1)


def trials(*endings: tuple[str, int]) -> list[FrozenTrial]:
    """Trials by state and the minute after the start in which they ended."""
    made = []
    for number, (state, minute) in enumerate(endings):
        values = [1.0] if state == "COMPLETE" else None
        trial = create_trial(state=TrialState[state], values=values, user_attrs={ATTRIBUTE: {"seconds": float(minute)}})
        trial.number, trial.datetime_complete = number, START + timedelta(minutes=minute)
        made.append(trial)
    return made


def test_failures_after_the_last_success_count() -> None:
    history = History(START.timestamp())
    history.take(trials(("FAIL", 1), ("COMPLETE", 2), ("FAIL", 5), ("FAIL", 3), ("PRUNED", 4)))
    assert history.consecutive_failures == 1
    assert history.longest == 2.0


def test_failures_before_the_start_do_not_count() -> None:
    history = History(START.timestamp())
    history.take(trials(("FAIL", -2), ("FAIL", -1), ("FAIL", 1)))
    assert history.consecutive_failures == 1


def test_looking_in_pieces_or_at_once_says_the_same() -> None:
    known = trials(*[("FAIL" if n % 3 else "COMPLETE", (7 * n) % 40) for n in range(40)])
    pieces, whole = History(START.timestamp()), History(START.timestamp())
    for _, end in pairwise(range(0, 41, 8)):
        pieces.take(known[:end])
        pieces.take(known[:end])
    whole.take(known)
    assert (pieces.consecutive_failures, pieces.longest) == (whole.consecutive_failures, whole.longest)
