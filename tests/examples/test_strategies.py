"""The examples of several metrics with constraints, and of a sampler of one's own."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_studies import optimize, rows


def test_a_pareto_front_with_constraints(tmp_path: Path) -> None:
    result = optimize("pareto", tmp_path, "--local", "2", "-t", "20")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert len(trials) == 20
    for trial in trials:
        kept = float(trial["params_thousands"]) <= 20 and float(trial["accuracy"]) >= 0.7
        assert trial["feasible"] == str(kept)
    assert {"True", "False"} == {trial["feasible"] for trial in trials}

    feasible = [trial for trial in trials if trial["feasible"] == "True"]
    front = [trial for trial in feasible if not any(beats(other, trial) for other in feasible)]
    files = {path.name for path in tmp_path.rglob("best-*.yml")}
    assert files == {f"best-{trial['number']}.yml" for trial in front}
    assert f"{len(feasible)} of 20 complete trials are feasible" in result.stdout


def beats(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether a trial is as good in both metrics, and better in one."""
    gain = float(one["accuracy"]) - float(other["accuracy"])
    saving = float(other["params_thousands"]) - float(one["params_thousands"])
    return gain >= 0 and saving >= 0 and gain + saving > 0


def test_a_sampler_of_ones_own(tmp_path: Path) -> None:
    result = optimize("own_sampler", tmp_path)
    assert result.returncode == 0, result.stderr
    assert min(float(trial["depth"]) for trial in rows(tmp_path)) < 0.05
