"""The page and the files of figures: what they hold, and that nothing in them is taken for markup or asks anybody."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import stat
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from aimlhpo.config.schema import Config
from aimlhpo.results import figures
from aimlhpo.results import page as module
from aimlhpo.results.page import write_figures, write_report
from aimlhpo.results.report import read_report
from tests.results.browser import browse
from tests.results.studies import MARKUP, known_study


def packed(page: str, name: str) -> str:
    """What a browser unpacks."""
    found = re.search(rf'id="{name}">([^<]*)<', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found.group(1))).decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, Config, Path]:
    """A study, and its page."""
    folder = tmp_path_factory.mktemp("report")
    study, config = known_study(folder)
    return study, config, write_report(study, config, folder / "report.html")


def test_the_page_holds_the_studys_numbers_and_its_figures(made: tuple[optuna.Study, Config, Path]) -> None:
    study, config, path = made
    page = path.read_text()
    data: dict[str, Any] = json.loads(packed(page, "data"))
    columns, rows = data["table"]["columns"], data["table"]["rows"]
    assert columns[:2] == ["number", "state"]
    stored = [(trial.number, trial.state.name, trial.params["x"]) for trial in study.trials]
    assert [(row[0], row[1], row[columns.index("x")]) for row in rows] == stored
    assert [row[columns.index("peak_memory_mb")] for row in rows] == [500.0 + number for number in range(19)]
    assert "peak_gpu_memory_mb" not in columns  # no trial knows it
    hours = read_report(study, config).hours
    assert sum(row[columns.index("GPU-hours")] for row in rows) == hours.spent
    assert f'<td class="number"><b>{hours.spent:.4g}</b></td>' in page
    expected = {"history", "curves", "rungs", "importance", "importance-2", "parallel", "hours", "timeline"}
    assert expected < data["figures"].keys()
    assert "could not be drawn" not in page
    assert "Plotly" in packed(page, "plotly")[:3000] or "plotly.js" in packed(page, "plotly")[:200]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_users_and_objectives_wrote_is_escaped(made: tuple[optuna.Study, Config, Path]) -> None:
    page = made[2].read_text()
    assert MARKUP not in page
    assert html.escape(MARKUP) in page
    assert "default-src 'none'" in page


def test_the_page_shows_the_best_configuration_as_a_difference(made: tuple[optuna.Study, Config, Path]) -> None:
    page = made[2].read_text()
    assert '<span class="del">-  x: 0.9</span><span class="add">+  x: 0.0</span>' in page
    assert "# trial: 0" in html.unescape(page)  # the text that the button copies is best.yml


def test_a_better_trial_that_ends_while_the_page_is_made_does_not_keep_it_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, config = known_study(tmp_path, trials=2)
    drawn = module.figures_of

    def figures_of(*arguments: Any) -> Any:
        study.add_trial(
            create_trial(value=-1.0, params=study.trials[0].params, distributions=config.space.distributions)
        )
        return drawn(*arguments)

    monkeypatch.setattr(module, "figures_of", figures_of)
    page = write_report(study, config, tmp_path / "report.html").read_text()
    assert study.best_trial.number == 2
    assert "# trial: 0" in html.unescape(page)


@pytest.mark.parametrize("trials", [0, 1])
def test_a_study_with_hardly_a_trial_has_a_page_and_files(trials: int, tmp_path: Path) -> None:
    study, config = known_study(tmp_path, trials=trials)
    page = write_report(study, config, tmp_path / "report.html").read_text()
    assert "No trial has failed" in page
    assert ("No trial is complete yet" in page) == (trials == 0)
    write_figures(study, config, tmp_path / "figures", ["png"])


def test_each_figure_is_a_file_of_each_format(made: tuple[optuna.Study, Config, Path], tmp_path: Path) -> None:
    study, config, _ = made
    written = write_figures(study, config, tmp_path / "figures", ["png", "pdf"])
    assert {"history.png", "history.pdf", "curves.png", "timeline.pdf", "slice-x.png"} < {path.name for path in written}
    beginnings = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert all(path.read_bytes().startswith(beginnings[path.suffix]) for path in written)


def test_a_figure_of_lines_shows_few_of_them_and_the_best_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_LINES", 5)
    study, config = known_study(tmp_path, direction="maximize")
    parallel = next(one for one in figures.figures_of(read_report(study, config), study) if one.name == "parallel")
    assert parallel.note == "5 of 12 complete trials are drawn. "  # every third by number, and trial 5, the best
    lines = [trace for trace in parallel.plotly().data if trace.mode == "lines"]
    assert {tuple(line.customdata[0]) for line in lines} == {
        ("val_loss", value) for value in ("0", "3", "6", "9", "11")
    }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"metric": ["a", "b"], "direction": ["minimize", "minimize"], "pruner": None, "constraints": "a <= 6"},
    ],
    ids=["pruning", "constraints"],
)
def test_a_real_browser_shows_all_of_it_without_an_error_or_a_request(keys: dict[str, Any], tmp_path: Path) -> None:
    study, config = known_study(tmp_path, **keys)
    page = write_report(study, config, tmp_path / "report.html")
    found = browse(page, tmp_path)
    drawn = json.loads(packed(page.read_text(), "data"))["figures"]
    assert found["drawn"] == found["figures"] == len(drawn)
    assert [*found["sections"]] == ["best", "search", "parameters", *["tradeoffs"][: bool(keys)], "cost", "failures",
                                 "origin", "all"]  # fmt: skip
    assert found["ascending"] == sorted(found["ascending"])
    assert found["descending"] == sorted(found["descending"], reverse=True)
    assert found["filtered"] == [16, 17, 18]
    assert found["below_three"] == [0, 1, 2]
    assert found["alerts"] == 0
    assert found["copied"].startswith("# Best configuration of the study 's'")


def test_the_browser_tells_of_errors_and_of_requests(tmp_path: Path) -> None:
    study, config = known_study(tmp_path)
    page = write_report(study, config, tmp_path / "report.html")
    bad = """<img src="http://far.example/a.png"><script>
    console.error("said", 1); Promise.reject("no"); setTimeout(() => { throw new Error("late"); });
    </script><script>1 +</script></body>"""
    page.write_text(page.read_text().replace("</body>", bad))
    with pytest.raises(AssertionError) as raised:
        browse(page, tmp_path)
    told = ("said 1", "not handled: no", "Error: late", "SyntaxError", "requested: http://far.example/a.png")
    assert [words for words in told if words not in str(raised.value)] == []
