"""`aimlhpo.open_study`: what it gives equals the storage, and nothing is ever written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from optuna.trial import TrialState

import aimlhpo
from aimlhpo.cli.main import main
from aimlhpo.errors import ConfigError, StudyError
from aimlhpo.storage.attributes import record_of
from tests.results.studies import MARKUP, known_study


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("storage", ["journal", "sqlite:///{}/s.db"])
def test_it_gives_what_the_storage_holds_and_writes_nothing(storage: str, tmp_path: Path) -> None:
    stored, config = known_study(tmp_path, storage=storage.format(tmp_path))
    before = contents(tmp_path)
    study = aimlhpo.open_study(config.paths.save_path)
    assert study.best_trial.number == stored.best_trial.number
    assert study.best_config == {"model": {"x": 0.0, "units": 4}}
    trials = study.trials
    assert list(trials.index) == [trial.number for trial in stored.trials]
    assert list(trials["params_x"]) == [trial.params["x"] for trial in stored.trials]
    assert trials["gpu_hours"].sum() == sum(record_of(t)["gpu_seconds"] for t in stored.trials) / 3600
    assert set(trials[trials["state"] == "FAIL"]["cause"]) == set(study.failures["cause"])
    assert len(study.reports) == sum(len(trial.intermediate_values) for trial in stored.trials)
    assert study.study.best_value == stored.best_value
    assert contents(tmp_path) == before


def test_what_would_change_the_study_is_refused(tmp_path: Path) -> None:
    stored, config = known_study(tmp_path)
    study = aimlhpo.open_study(config.paths.save_path).study
    for change in (study.ask, lambda: study.enqueue_trial({"x": 0.5}), lambda: study.set_user_attr("a", 1)):
        with pytest.raises(StudyError, match="can only be read"):
            change()
    assert len(stored.get_trials()) == 19


def test_its_figures_are_plotlys_and_a_missing_one_is_told_with_those_there_are(tmp_path: Path) -> None:
    _, config = known_study(tmp_path)
    study = aimlhpo.open_study(config.paths.save_path)
    shown = study.plot_history().data[0]
    complete = [trial for trial in study.study.trials if trial.state == TrialState.COMPLETE]
    assert list(shown.y) == [trial.value for trial in complete]
    assert len(study.plot_importance().data[0].y) == 2
    with pytest.raises(StudyError, match=r"no figure 'pareto' yet; it has: history, "):
        study.plot_pareto()


def test_a_notebook_shows_the_best_trial_and_takes_nothing_for_markup(tmp_path: Path) -> None:
    _, config = known_study(tmp_path, direction="maximize")  # trial 5, which chose the markup
    shown = aimlhpo.open_study(config.paths.save_path)._repr_html_()
    assert "(trial 5)" in shown
    assert "<td>model:x</td><td>0.9</td>" in shown
    assert MARKUP not in shown
    assert "&lt;/script&gt;" in shown


def test_it_stays_as_it_was_until_it_is_read_again(tmp_path: Path) -> None:
    stored, config = known_study(tmp_path)
    study = aimlhpo.open_study(config.paths.save_path)
    assert len(study.trials) == 19
    stored.ask()
    assert len(study.trials) == 19
    study.refresh()
    assert len(study.trials) == 20


def test_what_was_changed_counts_once_it_is_read_again(tmp_path: Path) -> None:
    _, config = known_study(tmp_path)
    study = aimlhpo.open_study(config.paths.save_path)
    assert main(["change", str(config.paths.save_path), "optuna:n_trials=31"]) == 0
    assert " of 31 trials done" not in study._repr_html_()
    study.refresh()
    assert " of 31 trials done" in study._repr_html_()


def test_a_study_that_is_not_there_or_has_no_result_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        aimlhpo.open_study(tmp_path / "nowhere")
    _, config = known_study(tmp_path, trials=0)
    study = aimlhpo.open_study(config.paths.save_path)
    with pytest.raises(StudyError, match="no trial is complete yet"):
        _ = study.best_config
    assert study.trials.empty
    assert study.failures.empty
    assert study.reports.empty
