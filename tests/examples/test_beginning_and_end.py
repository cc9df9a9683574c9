"""The examples of stopping rules and of a warm start, as a user runs them."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_studies import optimize, rows, run


def test_stopping(tmp_path: Path) -> None:
    result = optimize("stopping", tmp_path, "--local", "2")
    assert result.returncode == 0, result.stderr
    ended = result.stdout.splitlines()[-1]
    assert ended.startswith(("study stopping ended by target_value: ", "study stopping ended by patience: "))
    assert len(rows(tmp_path)) < 200
    assert ended.removeprefix("study stopping ended by ") in run("-m", "aimlhpo", "status", str(tmp_path)).stdout


def test_warm_start(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    files = [f"examples/warm_start/{name}.yml" for name in ("small", "small_model")]
    first = run("optimize.py", *files, "-s", str(small))
    assert first.returncode == 0, first.stderr
    assert (rows(small)[0]["C"], rows(small)[0]["gamma"]) == ("1.0", "0.001")
    second = optimize("warm_start", large, "--local", "2", f"optuna:warm_start_from={small}")
    assert second.returncode == 0, second.stderr
    taken = [row for row in rows(large) if row["cause"].startswith("taken over from trial")]
    assert 0 < len(taken) < 12
    assert f"{len(taken)} of 12 trials of study small taken over; not: " in second.stdout
    own = [row for row in rows(large) if not row["cause"]]
    assert len(own) == 6
    best = max(own, key=lambda row: (float(row["accuracy"]), -int(row["number"])))
    assert [path.name for path in (large / "checkpoints").iterdir()] == [f"trial-{int(best['number']):05d}"]
