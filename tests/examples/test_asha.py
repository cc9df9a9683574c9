"""ASHA by stopping on the digits; by promotion it is run with its page in docs/."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_studies import rows, run


def test_stopping(tmp_path: Path) -> None:
    files = ["examples/asha/stopping.yml", "examples/torch/model.yml"]
    result = run("optimize.py", *files, "-s", str(tmp_path), "-t", "9", "trainer:epochs=9")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert len(trials) == 9
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
