"""The example that gives one trial several devices, here two processes that meet over gloo."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_studies import optimize, rows


def test_two_ranks_train_each_trial(tmp_path: Path) -> None:
    result = optimize("data_parallel", tmp_path, "--local", "1", "-t", "2")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert sorted(int(trial["number"]) for trial in trials) == list(range(2))
    assert {float(trial["ranks"]) for trial in trials if trial["state"] == "COMPLETE"} == {2}
