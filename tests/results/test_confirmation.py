"""What a confirmation makes of the values of repeated trainings."""

from __future__ import annotations

import math

import pytest
from optuna.study import StudyDirection

from aimlhpo.results.confirmation import Confirmation, ConfirmedTrial, confirmation_notes, judge, probabilities

MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def judged(*trials: ConfirmedTrial, seeds: int = 3, direction: StudyDirection = MINIMIZE) -> Confirmation:
    first = {"trials": [trial.number for trial in trials], "seeds": seeds}
    return judge("s:confirm", trials, first, direction, sum(trial.seeds for trial in trials))


def trained(number: int, *values: float, seeds: int = 3, missed: int = 0, feasible: bool = True) -> ConfirmedTrial:
    return ConfirmedTrial(number, 0.1, values, seeds, missed, seeds - len(values) - missed, feasible)


def test_mean_and_spread_are_those_of_the_values() -> None:
    found = judged(trained(4, 1.0, 2.0, 3.0), trained(7, 0.5, 0.5, 0.8))
    assert [trial.number for trial in found.trials] == [7, 4]
    assert (found.trials[1].mean, found.trials[1].spread) == (2.0, 1.0)
    assert found.winner == 7
    assert (found.complete, found.open, found.missed) == (6, 0, 0)


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        # Student's t with 4 degrees of freedom at (2 - 1) / sqrt(0.01 * 2 / 3) and at 0.05 / sqrt(0.01 * 2 / 3)
        (([1.0, 1.1, 0.9], [2.0, 2.1, 1.9]), 0.99987),
        (([1.0, 1.1, 0.9], [1.05, 1.15, 0.95]), 0.71314),
        (([1.0, 1.1, 0.9], [1.0, 1.1, 0.9]), 0.5),
    ],
)
def test_of_two_the_probability_is_that_of_students_t(values: tuple[list[float], list[float]], exact: float) -> None:
    found = probabilities(values, MINIMIZE)
    assert found == probabilities(values, MINIMIZE)
    assert found is not None
    assert found[0] == pytest.approx(exact, abs=0.006)
    assert sum(found) == pytest.approx(1.0)
    turned = probabilities(values, MAXIMIZE)
    assert turned is not None
    assert turned[1] == pytest.approx(exact, abs=0.006)


def test_with_one_training_each_spread_and_probability_are_unknown() -> None:
    found = judged(trained(1, 0.3, seeds=1), trained(2, 0.2, seeds=1), seeds=1)
    assert [(trial.spread, trial.probability) for trial in found.trials] == [(None, None), (None, None)]
    assert found.winner == 2
    assert "spread unknown" in str(found.trials[0])
    assert any("spread is unknown" in note for note in confirmation_notes(found))


def test_what_breaks_a_constraint_never_wins_and_has_no_chance() -> None:
    found = judged(trained(1, 0.1, 0.1, 0.2, feasible=False), trained(2, 0.5, 0.6, 0.7))
    assert found.winner == 2
    infeasible, kept = found.of(1), found.of(2)
    assert infeasible is not None
    assert kept is not None
    assert (infeasible.probability, kept.probability) == (0.0, 1.0)
    assert found.trials[-1] == infeasible
    assert "breaks a constraint: 1" in next(confirmation_notes(found))
    assert judged(trained(1, 0.1, 0.1, 0.2, feasible=False)).winner is None


def test_a_training_that_failed_keeps_its_configuration_from_winning() -> None:
    found = judged(trained(1, 0.1, 0.1, missed=1), trained(2, 0.5, 0.6, 0.7))
    assert found.winner == 2
    assert found.trials[-1].probability is None


def test_nobody_has_won_before_what_was_asked_for_at_first_has_ended() -> None:
    half = judged(trained(1, 0.1, 0.2, 0.3), trained(2, 0.5, 0.6))
    assert (half.winner, half.open) == (None, 1)
    more = judged(trained(1, 0.1, 0.2, 0.3, seeds=5), trained(2, 0.5, 0.6, 0.7, seeds=5))
    assert (more.winner, more.open) == (1, 4)


def test_of_equal_means_the_one_that_the_search_ranked_first_wins() -> None:
    found = judged(trained(9, 0.5, 0.5, 0.5), trained(1, 0.5, 0.5, 0.5))
    assert found.winner == 9
    assert [trial.probability for trial in found.trials] == [0.5, 0.5]
    assert any("may use no seed" in note for note in confirmation_notes(found))


def test_trials_without_values_are_told_without_any() -> None:
    found = judged(trained(1), trained(2))
    assert [(trial.mean, trial.spread, trial.probability) for trial in found.trials] == [(None, None, None)] * 2
    assert found.winner is None
    assert math.isfinite(found.open)
