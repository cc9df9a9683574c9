"""`aimlhpo report`, and the report at the end of a run."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from aimlhpo.cli.verbs import optimize
from tests.cli.studies import fill_study
from tests.project import Project
from tests.waiting import wait_until


def test_the_report_is_written_where_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 2)
    before = project.study().trials
    assert main(["report", str(project.save_path)]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == project.save_path / "report.html"
    assert written.read_text().startswith("<!doctype html>")
    assert main(["report", str(project.save_path), "-o", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").exists()
    assert project.study().trials == before


def test_figures_become_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 2)
    assert main(["report", str(project.save_path), "--format", "png,pdf"]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert {"history.png", "history.pdf"} <= names == {path.name for path in (project.save_path / "figures").iterdir()}
    assert not (project.save_path / "report.html").exists()


def test_a_format_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--format", "png,gif"]) == 2
    assert "--format: 'gif' is no format of a report; legal: html, png, pdf" in capsys.readouterr().err


def test_watch_keeps_the_page_fresh_until_the_study_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=2)
    study = fill_study(project, 1)
    report = project.save_path / "report.html"
    codes: list[int] = []
    watching = ["report", str(project.save_path), "--watch", "--every", "0.1"]
    thread = threading.Thread(target=lambda: codes.append(main(watching)))
    thread.start()
    wait_until(report.exists, 60)
    assert 'http-equiv="refresh"' in report.read_text()
    study.tell(study.ask(project.config.space.distributions), 0.5)
    thread.join(60)
    assert codes == [0]
    assert 'http-equiv="refresh"' not in report.read_text()
    assert "2 of 2" in report.read_text()


def test_watch_ends_with_a_budget_that_was_made_smaller(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=9)
    fill_study(project, 3)
    report = project.save_path / "report.html"
    codes: list[int] = []
    watching = ["report", str(project.save_path), "--watch", "--every", "0.1"]
    thread = threading.Thread(target=lambda: codes.append(main(watching)), daemon=True)
    thread.start()
    wait_until(report.exists, 60)
    assert main(["change", str(project.save_path), "optuna:n_trials=3"]) == 0
    thread.join(60)
    assert codes == [0]
    assert "3 of 3" in report.read_text()


def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    fill_study(project, 1)
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main(["report", str(project.save_path)]) == 2
    error = capsys.readouterr().err
    assert "needs the package plotly, which is not installed" in error
    assert "pip install 'aimlhpo[report]'" in error


def test_a_run_ends_with_its_report(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=2)
    done = project.run("log:report=true")
    assert done.stdout.splitlines()[-1] == f"report: {project.save_path / 'report.html'}"
    assert (project.save_path / "report.html").exists()
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("missing", [True, False])
def test_a_report_that_cannot_be_written_is_no_error_of_the_run(
    missing: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, n_trials=1)
    study = fill_study(project, 1)
    if missing:
        monkeypatch.setitem(sys.modules, "plotly", None)
    else:
        project.config.paths.report.mkdir()
    optimize._write_report(study, project.config)
    told = capsys.readouterr()
    if missing:
        assert "no report was written: needs the package plotly" in told.out
        assert "pip install 'aimlhpo[report]'" in told.out
    else:
        assert re.search(r"no report was written: .*report\.html.*see aimlhpo report", told.err)
