"""What the trials that have ended say about those to come."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.storage.attributes import RECORD
from aimlhpo.storage.trials import LongestTrial


def trials(*endings: tuple[str, float]) -> list[FrozenTrial]:
    """Trials by state and the seconds that they took."""
    made = []
    for number, (state, seconds) in enumerate(endings):
        values = [1.0] if state == "COMPLETE" else None
        trial = create_trial(state=TrialState[state], values=values, system_attrs={RECORD: {"seconds": seconds}})
        trial.number = number
        made.append(trial)
    return made


def test_the_longest_complete_trial_counts_however_often_trials_are_shown() -> None:
    longest, known = LongestTrial(), trials(("COMPLETE", 2.0), ("FAIL", 9.0), ("PRUNED", 8.0), ("COMPLETE", 5.0))
    assert [longest.among(known[:shown]) for shown in (0, 3, 3, 4)] == [0.0, 2.0, 2.0, 5.0]


def test_in_a_section_of_jobs_its_own_trials_count() -> None:
    known = trials(("COMPLETE", 2.0), ("COMPLETE", 9.0), ("COMPLETE", 3.0))
    for trial, section in zip(known, ("a100", "v100", "a100"), strict=True):
        trial.system_attrs[RECORD]["section"] = section
    known[1].system_attrs[RECORD]["by_section"] = {"a100": {"seconds": 5.0}, "v100": {"seconds": 4.0}}  # it has moved
    assert [LongestTrial(section).among(known) for section in ("a100", "v100", None)] == [3.0, 4.0, 9.0]
