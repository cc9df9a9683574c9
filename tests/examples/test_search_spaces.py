"""Each way to say what to search, as a user runs it."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_studies import optimize, rows


def test_every_kind_of_parameter(tmp_path: Path) -> None:
    result = optimize("search_spaces", tmp_path)
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * 8
    assert {trial["forest:bootstrap"] for trial in trials} == {"True"}
    assert {int(trial["forest:max_depth"]) for trial in trials} <= {2, 4, 6, 8, 12}


def test_dependencies(tmp_path: Path) -> None:
    result = optimize("dependencies", tmp_path)
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert len(trials) == 12
    assert {trial["optimizer:name"] for trial in trials} == {"plain", "momentum"}
    for trial in trials:
        assert (trial["optimizer:momentum"] != "") == (trial["optimizer:name"] == "momentum")
        assert float(trial["momentum_used"]) == (trial["optimizer:name"] == "momentum")


def test_grid(tmp_path: Path) -> None:
    result = optimize("grid", tmp_path, "--local", "2")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    found = {(t["k"], t["weights"], t["leaf_size"], t["p"]) for t in trials}
    assert len(trials) == len(found) == 24
    assert optimize("grid", tmp_path, "-r", "1").returncode == 3


def test_sweep(tmp_path: Path) -> None:
    searched = ("point.x=interval(0, 1)", "point.y=range(0, 5)", "point.ground=low,high")
    result = optimize("sweep", tmp_path, *searched, "sampler.n_startup_trials=4")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert len(trials) == 8
    assert all(0 <= float(trial["point:x"]) <= 1 for trial in trials)
    assert {trial["point:ground"] for trial in trials} <= {"low", "high"}
