"""Rungs, brackets and ranks; what is wrong with ASHA's arguments."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from aimlhpo.agent.trial_store import Pruning
from aimlhpo.errors import ConfigError
from aimlhpo.search.asha import ASHA, Ladder, Promotion, ranked
from aimlhpo.storage.base import OpenTrial
from aimlhpo.storage.owned import own


def test_resources_count_from_one_where_reports_count_from_zero() -> None:
    ladder = Ladder(1, 27, 3)
    assert ladder.resources == [1, 3, 9]
    assert [ladder.step(resource) for resource in ladder.resources] == [0, 2, 8]
    assert Ladder(1, 27, 3, first_step=1).step(9) == 9
    assert Ladder(2, 16, 2).resources == [2, 4, 8]
    assert Ladder(1, 10, 3).resources == [1, 3, 9]


def test_a_rung_takes_the_first_report_that_reaches_it() -> None:
    ladder = Ladder(3, 27, 3)
    assert ladder.value_at(3, {0: 5.0, 1: 4.0}) is None
    assert ladder.value_at(3, {0: 5.0, 2: 3.0, 4: 1.0}) == 3.0
    assert ladder.value_at(3, {9: 1.0, 4: 2.0}) == 2.0


def test_brackets_leave_out_the_first_rungs_and_share_the_trials_by_weight() -> None:
    ladder = Ladder(1, 27, 3, brackets=4)
    assert [ladder.rungs(bracket) for bracket in range(4)] == [[1, 3, 9], [3, 9], [9], []]
    drawn = [ladder.bracket("s", number) for number in range(3000)]
    shares = [drawn.count(bracket) / 3000 for bracket in range(4)]
    assert shares == pytest.approx([27 / 49, 12 / 49, 6 / 49, 4 / 49], abs=0.03)


def test_ranks_put_nan_last_and_the_older_of_two_alike_first() -> None:
    values = {0: float("nan"), 1: 2.0, 2: 1.0, 3: 1.0}
    assert ranked(values, maximize=False) == [2, 3, 1, 0]
    assert ranked(values, maximize=True) == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"mode": "promote"}, "mode", "'promote' is no mode of ASHA"),
        ({"reduction_factor": 1}, "reduction_factor", "1 is too small"),
        ({"min_resource": 0}, "min_resource", "0 is too small"),
        ({"min_resource": 9}, "max_resource", "9 is not more than min_resource, 9"),
        ({"brackets": 4}, "brackets", "4 is not possible"),
        ({"brackets": 0}, "brackets", "0 is not possible"),
        ({"first_step": 2}, "first_step", "2 is not a first step"),
    ],
)
def test_arguments_that_make_no_rungs(arguments: dict[str, Any], where: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ASHA(**{"max_resource": 9, **arguments})
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [(where, found)]


def study_with(pruner: ASHA, direction: str = "minimize") -> optuna.Study:
    storage = own(optuna.storages.InMemoryStorage())
    return optuna.create_study(study_name="s", storage=storage, pruner=pruner, direction=direction)


def running(study: optuna.Study, *values: float) -> int:
    trial_id = study._storage.create_new_trial(study._study_id)
    for step, value in enumerate(values):
        study._storage.set_trial_intermediate_value(trial_id, step, value)
    return int(trial_id)


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_stopping_keeps_the_best_third_of_those_that_have_come_to_a_rung(direction: str, sign: float) -> None:
    study = study_with(ASHA(max_resource=9), direction)
    pruning = Pruning(study, 0)
    stopped = [pruning.decide(running(study, sign * value), [0]) for value in (5.0, 6.0, 4.0, 4.5, 3.0, 4.2, 3.5)]
    #                     the first; worse; the best so far; worse; the best so far; third of six; second of seven
    assert stopped == [False, True, False, True, False, True, False]


def test_stopping_asks_at_a_rung_only_and_nan_is_never_good_enough() -> None:
    study = study_with(ASHA(max_resource=9))
    pruning = Pruning(study, 0)
    assert not pruning.decide(running(study, 1.0), [0])
    good = running(study, 0.5, 99.0)
    assert not pruning.decide(good, [0, 1])
    study._storage.set_trial_intermediate_value(good, 2, 99.0)
    assert not pruning.decide(good, [2])
    assert pruning.decide(running(study, float("nan")), [0])


def paused(number: int, rung: int) -> OpenTrial:
    return OpenTrial(number, number, TrialState.WAITING, paused={"rung": rung})


def test_promotion_takes_the_best_paused_trial_of_the_highest_rung() -> None:
    study = study_with(ASHA(max_resource=9, mode="promotion"))
    promotion = Promotion.of(study, 0)
    assert promotion is not None
    for values in ((5.0,), (4.0,), (3.0,), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)):
        running(study, *values)
    waiting = [paused(number, 1) for number in range(3)]
    assert promotion.next([]) is None
    assert promotion.next([*waiting, paused(3, 3), paused(4, 3)]) is None  # one of five goes on, and has gone on
    running(study, 0.5)
    promoted = promotion.next([*waiting, paused(3, 3), paused(4, 3), paused(5, 1)])
    assert promoted is not None
    assert promoted.number == 5
    running(study, 2.5, 2.5, 2.5)
    promoted = promotion.next([*waiting, paused(3, 3), paused(4, 3), paused(5, 1)])
    assert promoted is not None
    assert promoted.number == 4  # the best of three at the higher rung


def test_a_study_without_promotion_has_none() -> None:
    assert Promotion.of(study_with(ASHA(max_resource=9)), 0) is None
    assert Promotion.of(study_with(ASHA(max_resource=9, mode="promotion")), None) is None
