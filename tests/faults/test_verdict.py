"""The judge sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.faults import printed, verdict
from tests.faults.evidence import Line, note, read
from tests.faults.verdict import History

pytestmark = pytest.mark.faults


def stored(number: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    x = {"params": {"x": value}, "distributions": {"x": FloatDistribution(0.0, 1.0)}} if value is not None else {}
    trial = create_trial(state=state, value=value, **x)
    trial.number = number
    return trial


def ran(number: int, begin: float, end: float | None, pid: int = 7, value: float = 0.5) -> list[Line]:
    lines = [Line(number, "begin", pid, 1, begin, None)]
    return lines if end is None else [*lines, Line(number, "end", pid, 1, end, value)]


def history(*runs: list[Line], killed: dict[int, float] | None = None, seen: dict[int, float] | None = None) -> History:
    lines = sorted((line for run in runs for line in run), key=lambda line: line.at)
    return History(lines, killed or {}, seen or {})


def test_what_is_as_it_should_be() -> None:
    fine = history(ran(0, 1, 2), ran(1, 3, 4), killed={7: 20.0}, seen={0: 0.5})
    trials = [stored(0, 0.5), stored(1, 0.5)]
    assert (verdict.lost(fine, trials), verdict.twice(fine), verdict.missed(trials, 2)) == ([], [], 0)


def test_a_result_that_vanished_changed_or_was_invented() -> None:
    assert verdict.lost(history(ran(0, 1, 2)), [stored(0, None, TrialState.FAIL)]) == [0]
    assert verdict.lost(history(ran(0, 1, 2), seen={0: 0.5}), [stored(0, 0.7)]) == [0]
    assert verdict.lost(history(), [stored(0, 0.5)]) == [0]


def test_a_trial_that_ran_again_after_its_result() -> None:
    again = history(ran(0, 1, 2), ran(0, 5, 6, pid=8))
    assert verdict.twice(again) == [0]


def test_an_interrupted_trial_may_run_again() -> None:
    interrupted = history(ran(0, 1, None), ran(0, 5, 6, pid=8), killed={7: 1.5})
    cut_off = history(ran(0, 1, 2), ran(0, 5, 6, pid=8), killed={7: 2.1})
    for case in (interrupted, cut_off):
        assert (verdict.lost(case, [stored(0, 0.5)]), verdict.twice(case)) == ([], [])


def test_what_was_stopped_before_it_told_its_result_may_run_again() -> None:
    lines = sorted([*ran(0, 1, 2), *ran(0, 5, 6, pid=8)], key=lambda line: line.at)
    assert verdict.twice(History(lines, {}, {}, {7: [(2.1, 8.0)]})) == []
    assert verdict.twice(History(lines, {}, {}, {7: [(2.1, 8.0), (9.0, 9.5)]})) == []
    assert verdict.twice(History(lines, {}, {}, {7: [(3.5, 8.0)]})) == [0]
    assert verdict.twice(History(lines, {}, {}, {7: [(0.5, 1.5)]})) == [0]


def test_what_was_taken_from_one_that_was_stopped_in_its_midst_may_run_again() -> None:
    lines = [*ran(0, 1, 20), *ran(0, 21, 22, pid=8)]
    assert verdict.twice(History(lines, {}, {}, {7: [(1.5, 19.0)]}, grace=6.0)) == []
    assert verdict.twice(History(lines, {}, {}, {7: [(1.5, 5.0)]}, grace=6.0)) == [0]
    assert verdict.twice(History(lines, {}, {}, {7: [(0.1, 0.9)]}, grace=0.5)) == [0]


def test_how_long_nobody_began() -> None:
    assert verdict.resumed(history(ran(0, 1, 2), ran(1, 3, 4), ran(2, 9, 10)), [1.5, 3.5, 9.5]) == (1.5, 5.5)
    assert verdict.resumed(history(ran(0, 1, 2)), [1.5]) == ()


def test_files_that_say_otherwise(tmp_path: Path) -> None:
    trials = [stored(0, 0.5), stored(1, 0.5), stored(2, 0.1)]
    (tmp_path / "results.csv").write_text("number,state,val_loss,x\n0,COMPLETE,0.5,0.5\n1,COMPLETE,0.7,0.5\n")
    (tmp_path / "best.yml").write_text("# study\n# trial: 0\n# val_loss: 0.5\nmodel:\n  x: 0.5\n")
    assert printed.wrong(printed.read(tmp_path), trials) == [1]
    assert printed.misprinted(tmp_path, trials) == [1, 2]
    (tmp_path / "best.yml").write_text("# trial: 0\n# val_loss: 0.4\nmodel:\n  x: 0.5\n")
    assert printed.wrong(printed.read(tmp_path), trials) == [0, 1]


def test_files_that_are_half_written(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("number,state,val_loss,x\n0,COMPLETE,0.5")
    with pytest.raises(ValueError, match="in the middle of a line"):
        printed.read(tmp_path)


def test_evidence_is_read_as_it_was_written(tmp_path: Path) -> None:
    note(tmp_path, 3, "begin")
    note(tmp_path, 3, "end", 0.25)
    assert [(line.number, line.event, line.value) for line in read(tmp_path)] == [(3, "begin", None), (3, "end", 0.25)]


def test_a_budget_that_was_overshot() -> None:
    assert verdict.missed([stored(number, 0.5) for number in range(5)], 3) == 2
