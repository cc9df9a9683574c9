"""Each rule on its own: what it counts, and what it says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.errors import StudyFailed
from aimlhpo.search.stopping import (
    STOPPING_RULES,
    ConsecutiveFailures,
    GpuHours,
    PatienceRule,
    Rule,
    StoppingCriteria,
    TargetValue,
    Terminator,
    Timeout,
    make_rules,
    read_note,
)
from aimlhpo.storage.attributes import RECORD, STUDY_ATTR, set_study_attribute
from aimlhpo.storage.base import OpenTrial, Overview
from tests.waiting import wait_until

HOUR = 3600.0


def trial(number: int, *values: float, state: str = "COMPLETE", **attrs: Any) -> FrozenTrial:
    given: dict[str, Any] = {"values": list(values)} if values else {}
    made = create_trial(state=TrialState[state], system_attrs={RECORD: attrs}, **given)
    made.number = number
    return made


def says(
    rule: Rule, trials: Sequence[FrozenTrial], unfinished: Sequence[OpenTrial] = (), now: float = 0.0
) -> str | None:
    for one in trials:
        rule.add(one)
    return rule(unfinished, now)


def test_timeout_counts_from_its_beginning() -> None:
    rule = Timeout(60.0, "study")
    rule.update({"begun": 1000.0, "started": 5000.0})
    assert rule([], 1059.0) is None
    assert rule([], 1061.0) == "more than 1m00s have passed since the study was begun"


def test_all_agree_on_a_timeout_when_the_study_is_started_again() -> None:
    """Two agents that were started apart: the first one's note must not hide the second one's."""
    study, over = optuna.create_study(), time.time() - 61.0
    set_study_attribute(study, STUDY_ATTR, {"begun": over - 9.0, "started": over - 9.0})
    first = StoppingCriteria(study, [Timeout(60.0, "submission")])
    set_study_attribute(study, STUDY_ATTR, {"begun": over - 9.0, "started": time.time()})
    second = StoppingCriteria(study, [Timeout(60.0, "submission")])
    assert first.ended(Overview()) is second.ended(Overview()) is None
    set_study_attribute(study, STUDY_ATTR, {"begun": over - 9.0, "started": over})
    noted = second.ended(Overview())
    assert noted is not None
    assert noted.limit == [60.0, over]
    assert first.ended(Overview()) == read_note(study, [Timeout(60.0, "submission")]) == noted


START = datetime(2026, 1, 1)


class Endings:
    """Trials by state and the minute in which they ended, as a storage tells of them; `looks` counts the questions."""

    def __init__(self, *endings: tuple[str, int]) -> None:
        self.endings, self.looks = list(endings), 0

    def latest(self, most: int, states: tuple[TrialState, ...]) -> list[datetime]:
        self.looks += 1
        names = {state.name for state in states}
        return sorted(START + timedelta(minutes=minute) for state, minute in self.endings if state in names)[-most:]

    def ask(self, rule: ConsecutiveFailures) -> str | None:
        """What the rule says of them, asked as it is at a claim."""
        may_hold = rule.may_hold(Overview(failed=sum(state == "FAIL" for state, _ in self.endings)))
        return rule([], 0.0) if may_hold else None


def failures_in_a_row(most: int, endings: Endings) -> ConsecutiveFailures:
    rule = ConsecutiveFailures(most, endings.latest)
    rule.update({"started": START.timestamp()})
    return rule


def test_failures_after_the_last_success_are_in_a_row() -> None:
    endings = Endings(("FAIL", 1), ("COMPLETE", 2), ("FAIL", 5), ("FAIL", 3), ("PRUNED", 4))
    rule = failures_in_a_row(2, endings)
    assert endings.ask(rule) is None
    endings.endings.append(("FAIL", 6))
    assert endings.ask(rule) == "2 trials in a row have failed"


def test_failures_before_the_last_start_do_not_count() -> None:
    endings = Endings(("FAIL", -3), ("FAIL", -2), ("FAIL", -1), ("FAIL", 1), ("FAIL", 2))
    assert endings.ask(failures_in_a_row(3, endings)) is None
    assert endings.ask(failures_in_a_row(2, endings)) == "2 trials in a row have failed"


def test_rows_are_found_whenever_the_rule_is_asked() -> None:
    """It may be asked after each trial or after many, and looks at trials only where the row may be long enough."""
    known = [("FAIL" if number % 4 else "COMPLETE", number) for number in range(40)] + [("FAIL", 40), ("FAIL", 41)]
    for pace in (1, 3, 42):
        endings = Endings()
        rule = failures_in_a_row(5, endings)
        said = []
        for number in range(0, 42, pace):
            endings.endings = known[: number + pace]
            said.append(endings.ask(rule))
        assert said[-1] == "5 trials in a row have failed"
        assert not any(said[:-1])
        assert endings.looks <= 2 * 32 / 2  # two questions each time, at most after each second failure


@pytest.mark.parametrize(("direction", "reached"), [("minimize", 0.04), ("maximize", 0.06)])
def test_target_is_reached_by_direction(direction: str, reached: float) -> None:
    missed = 0.1 - reached
    assert says(TargetValue({"loss": 0.05}, ["loss"], [direction]), [trial(0, missed)]) is None
    reason = says(TargetValue({"loss": 0.05}, ["loss"], [direction]), [trial(0, missed), trial(1, reached)])
    assert reason == f"loss {reached} {'<=' if direction == 'minimize' else '>='} 0.05 with trial 1"


def test_an_equal_value_reaches_the_target() -> None:
    assert says(TargetValue({"loss": 0.05}, ["loss"], ["minimize"]), [trial(0, 0.05)])


def test_one_trial_must_reach_all_targets() -> None:
    targets, metrics, directions = {"a": 0.9, "c": 5.0}, ["a", "b", "c"], ["maximize", "minimize", "minimize"]
    apart = [trial(0, 0.95, 1.0, 9.0), trial(1, 0.5, 1.0, 2.0)]
    assert says(TargetValue(targets, metrics, directions), apart) is None
    together = says(TargetValue(targets, metrics, directions), [*apart, trial(2, 0.91, 7.0, 3.0)])
    assert together == "a 0.91 >= 0.9, c 3 <= 5 with trial 2"


def test_pruned_failed_and_infeasible_trials_reach_no_target() -> None:
    infeasible = create_trial(value=0.0, system_attrs={"constraints": [1.0]})
    trials = [trial(0, 0.0, state="PRUNED"), trial(1, state="FAIL"), infeasible]
    assert says(TargetValue({"loss": 0.05}, ["loss"], ["minimize"]), trials) is None


def test_gpu_hours_count_every_attempt() -> None:
    done = [trial(0, 1.0, gpu_seconds=1800.0), trial(1, state="FAIL", gpu_seconds=900.0), trial(2, 1.0)]
    assert says(GpuHours(1.0), done) is None
    claim = {"gpus": 2.0, "since": 1000.0}
    running = OpenTrial(3, 3, TrialState.RUNNING, claim, {"gpu_seconds": 300.0})
    waiting = OpenTrial(4, 4, TrialState.WAITING, None, {"gpu_seconds": 200.0})
    assert says(GpuHours(1.0), done, [running, waiting], 1190.0) is None
    assert says(GpuHours(1.0), done, [running, waiting], 1200.0) == "1 of 1 GPU hours are used"


def test_gpu_hours_count_by_the_weights_of_the_sections_that_they_were_spent_in() -> None:
    weights = {"a100": 2.0, "v100": 0.5}
    both = {"a100": {"gpu_seconds": 900.0}, "v100": {"gpu_seconds": 1800.0}}
    done = [trial(0, 1.0, gpu_seconds=2700.0, by_section=both), trial(1, 1.0, gpu_seconds=300.0)]  # 1800 + 900 + 600
    history = {"gpu_seconds": 600.0, "by_section": {"v100": {"gpu_seconds": 400.0}}}  # 200 + 400
    claim = {"gpus": 2.0, "since": 1000.0, "section": "v100"}
    running = OpenTrial(2, 2, TrialState.RUNNING, claim, history)
    assert says(GpuHours(2.0, weights), done, [running], 4299.0) is None  # 3900 + 3299
    reached = says(GpuHours(2.0, weights), done, [running], 4300.0)
    assert reached == "2 of 2 GPU hours, by gpu_weight, are used"
    renamed = {"h100": 4.0, "v100": 0.5}  # the first is there no more: 900 + 900, and 300 without a section count 1200
    assert says(GpuHours(3000 / 3600, renamed), done) is not None
    assert says(GpuHours(3001 / 3600, renamed), done) is None
    assert GpuHours(2.0, dict.fromkeys(weights, 1.0)).limit == GpuHours(2.0).limit == 2.0
    assert GpuHours(2.0, weights).limit != GpuHours(2.0, {**weights, "v100": 1.0}).limit


def test_patience_counts_finished_trials_since_the_best() -> None:
    trials = [trial(0, 3.0), trial(1, 2.0), trial(2, state="FAIL"), trial(3, 2.0), trial(4, 9.0, state="PRUNED")]
    assert says(PatienceRule(3, 0.0, ["minimize"]), trials) is None
    reason = says(PatienceRule(3, 0.0, ["minimize"]), [*trials, trial(5, 5.0)])
    assert reason == "none of the 3 trials that finished after trial 1 is better"
    assert says(PatienceRule(3, 0.0, ["minimize"]), [*trials, trial(5, 1.0)]) is None


def test_patience_waits_for_a_first_complete_trial() -> None:
    pruned = [trial(number, 1.0, state="PRUNED") for number in range(9)]
    assert says(PatienceRule(3, 0.0, ["minimize"]), pruned) is None


def test_small_improvements_do_not_count_with_min_delta() -> None:
    slow = [trial(number, 10.0 + 0.1 * number) for number in range(4)]
    assert says(PatienceRule(3, 0.0, ["maximize"]), slow) is None
    assert says(PatienceRule(3, 0.25, ["maximize"]), slow) is None
    assert (
        says(PatienceRule(3, 0.5, ["maximize"]), slow) == "none of the 3 trials that finished after trial 0 is better"
    )


def test_with_several_metrics_the_pareto_front_must_grow() -> None:
    first = [trial(0, 1.0, 1.0), trial(1, 0.0, 2.0)]
    dominated = [trial(2, 1.0, 1.0), trial(3, 2.0, 2.0)]
    assert says(PatienceRule(2, 0.0, ["minimize", "minimize"]), first + dominated) is not None
    assert says(PatienceRule(2, 0.0, ["minimize", "minimize"]), [*first, dominated[0], trial(3, 2.0, 0.0)]) is None


STAGNATION = {
    "type": "Terminator",
    "improvement_evaluator": {"type": "BestValueStagnationEvaluator", "max_stagnation_trials": 3},
    "min_n_trials": 5,
}


def verdict(rule: Terminator, trials: Sequence[FrozenTrial]) -> str | None:
    """What it says once it has judged all of the trials."""
    says(rule, trials)
    wait_until(lambda: rule._verdict is None or rule._verdict.done(), "the verdict")
    return rule([], 0.0)


def test_optunas_terminator_is_asked_in_the_background() -> None:
    rule = Terminator(STAGNATION, StudyDirection.MINIMIZE, 1)
    assert verdict(rule, [trial(0, 1.0), *(trial(number, 2.0) for number in range(1, 4))]) is None
    reason = verdict(rule, [trial(4, 2.0), trial(5, 2.0), trial(6, state="FAIL")])
    assert reason == "Terminator sees no more to gain after 6 complete trials"


def test_a_terminator_that_cannot_judge_says_why() -> None:
    broken = {
        "type": "Terminator",
        "error_evaluator": {"type": "StaticErrorEvaluator", "constant": 0.1},
        "min_n_trials": 1,
    }
    with pytest.raises(StudyFailed, match="cannot judge the trials"):
        verdict(Terminator(broken, StudyDirection.MINIMIZE, 1), [trial(0, 1.0), trial(1, 1.0)])


class RecordingRule(Rule):
    """Keeps the numbers of the trials that it is given; set by `most_records`."""

    key = "most_records"

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.numbers: list[int] = []

    @classmethod
    def from_config(cls, config: Any, study: optuna.Study) -> RecordingRule:
        return cls(config.optuna.most_records)

    def add(self, trial: FrozenTrial) -> None:
        self.numbers.append(trial.number)

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        return None


def test_rules_get_every_trial_once_when_it_has_ended() -> None:
    study, rule = optuna.create_study(), RecordingRule()
    criteria = StoppingCriteria(study, [rule])
    first, second, third = (study.ask() for _ in range(3))

    def given() -> list[int]:
        done = sum(trial.state.is_finished() for trial in study.trials)
        assert criteria.ended(Overview(complete=done)) is None
        return rule.numbers

    assert given() == []
    study.tell(second, 1.0)
    assert given() == [1]
    study.tell(first, 1.0)
    study.tell(study.ask(), 1.0)
    assert given() == [1, 0, 3]
    study.tell(third, state=TrialState.FAIL)
    assert given() == [1, 0, 3, 2]


def test_a_rule_that_is_registered_is_made_where_its_key_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    study, options = optuna.create_study(), SimpleNamespace(**dict.fromkeys(STOPPING_RULES), most_records=None)
    monkeypatch.setitem(STOPPING_RULES, RecordingRule.key, RecordingRule)
    config: Any = SimpleNamespace(optuna=options)
    assert make_rules(study, config) == []
    options.most_records = 7
    (rule,) = make_rules(study, config)
    assert isinstance(rule, RecordingRule)
    assert rule.limit == 7
