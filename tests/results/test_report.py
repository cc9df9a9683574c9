"""Every number of the report is the storage's."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from aimlhpo.results import report as module
from aimlhpo.results.figures import HoursFigure
from aimlhpo.results.report import LOG_BYTES, Hours, read_report
from aimlhpo.storage.attributes import RECORD, record_of, set_study_attribute
from aimlhpo.storage.base import CLAIM, PAUSED, RELEASED
from tests.results.studies import START, known_study


def test_hours_are_what_the_trials_took_by_how_they_ended(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    hours = read_report(study, config).hours
    assert hours.unit == "GPU-hours"
    assert hours.by_end == {"COMPLETE": 12 * 4 / 2, "PRUNED": 4 / 2, "FAIL": 3 / 2}
    stored = sum(record_of(trial)["gpu_seconds"] for trial in study.trials) / 3600
    assert hours.spent == stored
    assert hours.wasted == {"exception: ValueError": 1.0, "out of memory": 0.5}
    assert hours.saved == pytest.approx(4 * 3 / 2)  # three of four reports were not trained


def test_causes_that_begin_alike_have_bars_of_their_own() -> None:
    causes = [f"exception: {'a' * 40}{ending}" for ending in ("One", "Two")]
    both = Hours("GPU-hours", {}, dict.fromkeys(causes, 1.0), None)
    plot = HoursFigure("hours", "cost", "", "", Hours("GPU-hours", {}, {}, None, by_section={"a100": both})).plot()
    assert list(plot.data[0].y) == [f"a100: wasted: {cause}" for cause in causes]
    assert {len(shown) for shown in plot.layout.yaxis.ticktext} == {34}


def test_trials_that_are_not_finished_cost_what_their_attempts_took(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    history = {"attempts": 1, "seconds": 7200.0, "gpu_seconds": 3600.0, "cause": "paused"}
    paused = {PAUSED: {"rung": 1, "token": "t"}, RELEASED: history}
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=paused))
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={RELEASED: history}))
    hours = read_report(study, config).hours
    assert (hours.by_end["PAUSED"], hours.by_end["WAITING"]) == (1.0, 1.0)


def test_without_gpus_the_hours_are_those_of_workers(tmp_path: Path) -> None:
    study, config = known_study(tmp_path, gpus=0.0)
    hours = read_report(study, config).hours
    assert (hours.unit, hours.by_end["PRUNED"]) == ("worker-hours", 4.0)


def test_the_best_the_history_and_the_rows_are_the_storages(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    report = read_report(study, config)
    assert [(best.number, best.values) for best in report.best] == [(0, {"val_loss": study.best_value})]
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert report.histories[0].points == tuple((trial.number, trial.value, True) for trial in complete)
    for row, trial in zip(report.rows, study.trials, strict=True):
        assert (row.number, row.state, row.params) == (trial.number, trial.state.name, trial.params)
        assert (row.start, row.end) == (trial.datetime_start, trial.datetime_complete)
    assert [curve.values for curve in report.curves] == [tuple(t.intermediate_values.values()) for t in study.trials]


def test_spans_show_where_the_last_attempt_ran(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    twice = {"seconds": 900.0, "attempts": 2, "worker": "host:agent-7:3"}
    trial = create_trial(value=1.0, system_attrs={RECORD: twice, RELEASED: {"attempts": 1, "seconds": 600.0}})
    trial.datetime_start, trial.datetime_complete = START, START + timedelta(hours=9)
    study.add_trial(trial)
    running = {"agent": "agent-8", "slot": 1, "token": "t", "since": START.timestamp()}
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: running}))
    spans = {span.number: span for span in read_report(study, config).spans}
    assert (spans[0].worker, spans[0].start, spans[0].end) == ("agent-0:0", START, START + timedelta(hours=4))
    assert (spans[19].worker, spans[19].end - spans[19].start) == ("agent-7:3", timedelta(seconds=300))
    assert (spans[20].worker, spans[20].state, spans[20].start) == ("agent-8:1", "RUNNING", START)


def test_the_important_parameter_is_found_with_its_uncertainty(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    importances = read_report(study, config).importances
    assert [(one.method, one.names[0]) for one in importances] == [("PED-ANOVA", "x"), ("fANOVA", "x")]
    for one in importances:
        assert sum(one.means) == pytest.approx(1.0)
        assert one.lows[0] <= one.means[0] <= one.highs[0]
        assert one.lows[0] < one.highs[0]


def test_importances_bear_parameters_that_only_some_trials_have_and_values_that_are_infinite(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    deep = {"depth": FloatDistribution(0, 1)}
    for value in (0.1, 0.4, 0.9, math.inf):
        study.add_trial(create_trial(value=value, params={"depth": min(value, 1.0)}, distributions=deep))
    importances = read_report(study, config).importances
    assert [one.trials for one in importances] == [15] * len(importances)
    assert "PED-ANOVA" in {one.method for one in importances}


def test_early_reports_are_correlated_with_the_last(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    rungs = read_report(study, config).rungs
    assert rungs is not None
    assert rungs.labels[-1] == "last"
    assert rungs.matrix[0][-1] == pytest.approx(1.0)
    assert rungs.trials == 12


def test_rungs_of_asha_are_those_of_its_ladder(tmp_path: Path) -> None:
    asha = {"type": "ASHA", "max_resource": 4, "min_resource": 1, "reduction_factor": 2}
    study, config = known_study(tmp_path, pruner=asha)
    rungs = read_report(study, config).rungs
    assert rungs is not None
    assert rungs.labels == ("rung 1", "rung 2", "last")


def test_failures_have_their_cause_and_the_end_of_their_own_log(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    report = read_report(study, config)
    assert report.causes == {"exception: ValueError": 2, "out of memory": 1}
    assert [failure.number for failure in report.failures] == [18, 17, 16]
    assert report.failures[0].lines.splitlines()[-1].startswith("line 99 of")
    assert all(len(failure.lines) <= LOG_BYTES for failure in report.failures)
    (config.paths.logs / "w.log").unlink()
    assert read_report(study, config).failures[0].lines == ""


def test_constraints_count_who_keeps_them(tmp_path: Path) -> None:
    study, config = known_study(tmp_path, constraints="val_loss <= 6")
    report = read_report(study, config)
    assert report.constraints == {"val_loss <= 6": (7, 12)}
    assert [row.number for row in report.rows if row.feasible] == [
        trial.number for trial in study.trials if trial.state == TrialState.COMPLETE and trial.values[0] <= 6
    ]


def test_how_the_study_was_made(tmp_path: Path) -> None:
    study, config = known_study(tmp_path, seed=11, sampler={"type": "TPESampler", "n_startup_trials": 3})
    set_study_attribute(
        study, "aimlhpo:provenance:ab", {"python": "3.11.2", "git_commit": "abc+", "packages": {"torch": "2"}}
    )
    origin = dict(read_report(study, config).origin)
    assert origin["sampler"] == "TPESampler(n_startup_trials=3)"
    assert (origin["seed"], origin["commit"], origin["packages"]) == ("11", "abc+", "torch 2")
    assert str(tmp_path) not in origin["storage"]


def test_what_was_chosen_for_the_study_is_told_as_that(tmp_path: Path) -> None:
    study, config = known_study(tmp_path, sampler=None, pruner=None)
    set_study_attribute(study, "aimlhpo:chosen", {"sampler": {"type": "RungTPESampler"}, "pruner": {"type": "ASHA"}})
    origin = dict(read_report(study, config).origin)
    assert (origin["sampler"], origin["pruner"]) == ("auto: RungTPESampler()", "auto: ASHA()")


def test_what_is_drawn_is_thinned_and_what_is_counted_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HISTORY", 20)
    monkeypatch.setattr(module, "MOST_CURVES", 10)
    study, config = known_study(tmp_path)
    trials = [create_trial(value=5.0, intermediate_values={0: 1.0}) for _ in range(88)]
    best = create_trial(value=-1.0, intermediate_values={0: 1.0})
    study.add_trials([*trials[:41], best, *trials[41:]])
    report = read_report(study, config)
    history = report.histories[0]
    assert (history.trials, report.n_curves, len(report.rows)) == (12 + 89, 19 + 89, 19 + 89)
    assert len(history.points) <= 20 + len(history.best)
    assert len(report.curves) <= 10 + 1
    assert history.best[-1] == (19 + 41, -1.0)
    assert {19 + 41} <= {curve.number for curve in report.curves} & {number for number, _, _ in history.points}
