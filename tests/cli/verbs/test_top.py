"""`aimlhpo top`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from aimlhpo.cli.main import main
from aimlhpo.cli.verbs import results
from tests.cli.studies import fill_study
from tests.project import Project


def test_the_best_trials_stand_in_a_table_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    study = fill_study(project, 5)
    assert main(["top", str(project.save_path), "-n", "3"]) == 0
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert header[:3] == ["trial", "val_loss", "x"]
    by_value = sorted(study.trials, key=lambda trial: trial.value or 0.0)[:3]
    assert [int(row[0]) for row in rows] == [trial.number for trial in by_value]


def test_json_and_csv_hold_the_stored_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    best = fill_study(project, 5).best_trial
    assert main(["top", str(project.save_path), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["number"], first["values"]) == (best.number, {"val_loss": best.value})
    change = {"key": "model:x", "before": 0.9, "after": best.params["x"], "added": False, "removed": False}
    assert first["changes"] == [change]
    assert main(["top", str(project.save_path), "--csv", "-n", "1"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (int(row["number"]), float(row["x"])) == (best.number, best.params["x"])


@pytest.mark.parametrize(("width", "hidden"), [(20, "no room for: "), (200, "")])
def test_a_narrow_terminal_shows_whole_columns_and_names_the_others(
    width: int, hidden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    fill_study(project, 2)
    monkeypatch.setattr(results, "Console", lambda: Console(width=width, force_terminal=True, color_system=None))
    assert main(["top", str(project.save_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines[:-1])
    assert lines[-1].startswith(hidden) if hidden else "worker" in lines[1]
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)


def test_a_study_without_complete_trials_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 0)
    assert main(["top", str(project.save_path)]) == 0
    assert capsys.readouterr().out == "no trial is complete yet\n"


def test_a_number_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", str(tmp_path), "-n", "none"]) == 2
    assert "-n: 'none' is not a number of trials" in capsys.readouterr().err
