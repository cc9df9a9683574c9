"""results.csv and best.yml hold what the storage holds, whatever was stored and whoever writes at the same time."""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from aimlhpo.config.schema import Config
from aimlhpo.results.table import ResultsWriter, write_results
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import RECORD
from aimlhpo.storage.study import load_study
from tests.project import Project

DEFAULTS = {"rate": 0.25, "opt": "adam"}
MODEL = {"optimizer": {"rate": 0.1, "name": "sgd"}, "layers": [{"units": 8}], "optuna_free": True}
PARAMETERS = {
    "optimizer:rate": {"type": "float", "settings": {"name": "rate", "low": 0.0, "high": 1.0}},
    "optimizer:name": {"type": "categorical", "settings": {"name": "opt", "choices": ["sgd", "adam"]}},
}


def add(
    study: optuna.Study,
    config: Config,
    params: dict[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    values: list[float] | None = None,
    **record: Any,
) -> int:
    """A finished trial with aimlhpo's record; returns its number."""
    params = DEFAULTS if params is None else params
    known: dict[str, BaseDistribution] = dict(config.space.distributions)
    study.add_trial(
        create_trial(
            state=state,
            values=values if values is not None or state != TrialState.COMPLETE else [1.0],
            params=params,
            distributions={name: known.get(name, FloatDistribution(0, 10)) for name in params},
            system_attrs={RECORD: record} if record else {},
        )
    )
    return len(study.get_trials()) - 1


def begin(tmp_path: Path, **optuna_keys: Any) -> tuple[optuna.Study, Config]:
    project = Project(tmp_path, **{"storage": "journal", "parameters": PARAMETERS, **optuna_keys})
    project.model.write_text(yaml.safe_dump(MODEL))
    config = project.config
    return begin_study(config), config


def table(config: Config) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(config.paths.results.read_text(encoding="utf-8"))))


def best(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_a_row_tells_all_about_its_trial(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(
        study, config, metrics={"val_loss": 1.0, "epochs": 3}, seconds=12.5, worker="host:a:0", device="gpu 1",
        peak_memory_mb=812.5,
    )  # fmt: skip
    write_results(study, config)
    assert table(config) == [
        {
            "number": "0", "state": "COMPLETE", "duration": "12.5", "worker": "host:a:0", "device": "gpu 1",
            "rate": "0.25", "opt": "adam", "val_loss": "1.0", "epochs": "3", "peak_memory_mb": "812.5",
            "cause": "",
        }
    ]  # fmt: skip


def test_failed_and_pruned_trials_have_rows_and_running_ones_do_not(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config, state=TrialState.FAIL, cause='exception: ValueError: a, "b"\nc')
    add(study, config, state=TrialState.PRUNED, values=[0.5])
    study.ask()
    write_results(study, config)
    first, second = table(config)
    assert first["cause"] == 'exception: ValueError: a, "b"\nc'
    assert first["val_loss"] == ""
    assert (second["state"], second["val_loss"]) == ("PRUNED", "0.5")


def test_conditional_parameters_leave_blanks_and_undeclared_ones_get_columns(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config, {"rate": 0.5, "depth": 3.0})
    add(study, config, {"opt": "sgd"})
    write_results(study, config)
    first, second = table(config)
    assert list(first) == [
        "number", "state", "duration", "worker", "device", "rate", "opt", "depth", "val_loss", "cause",
    ]  # fmt: skip
    assert (first["opt"], first["depth"]) == ("", "3.0")
    assert (second["rate"], second["depth"], second["opt"]) == ("", "", "sgd")


def test_columns_do_not_move_when_trials_are_added(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config, {"zeta": 1.0}, metrics={"zulu": 1})
    write_results(study, config)
    before = [name for name in table(config)[0] if name != "cause"]
    add(study, config, {"alpha": 1.0}, metrics={"beta": 1})
    write_results(study, config)
    after = list(table(config)[0])
    assert [name for name in after if name in before] == before
    assert {"alpha", "beta"} < set(after)


def test_values_come_back_as_they_were_stored(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    metrics = {"tiny": 1e-17, "third": 1 / 3, "big": 2**60, "nan": math.nan, "inf": -math.inf, "text": "a,b\nc;ü"}
    add(study, config, metrics=metrics, values=[0.1 + 0.2])
    add(study, config)
    write_results(study, config)
    row = table(config)[0]
    assert float(row["tiny"]) == 1e-17
    assert float(row["third"]) == 1 / 3
    assert float(row["val_loss"]) == 0.1 + 0.2
    assert row["big"] == str(2**60)
    assert math.isnan(float(row["nan"]))
    assert float(row["inf"]) == -math.inf
    assert row["text"] == "a,b\nc;ü"
    assert pd.read_csv(config.paths.results)["third"][0] == 1 / 3


def test_names_that_clash_are_told_apart(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config, {"state": 1.0, "val_loss": 2.0}, metrics={"number": 7}, values=[3.0])
    write_results(study, config)
    row = table(config)[0]
    assert row["params_state"] == "1.0"
    assert row["val_loss"] == "2.0"
    assert row["metrics_val_loss"] == "3.0"
    assert row["metrics_number"] == "7"


def test_trials_of_plain_optuna_work_too(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    study.optimize(lambda trial: trial.suggest_float("rate", 0.0, 1.0), n_trials=2)
    write_results(study, config)
    assert [row["state"] for row in table(config)] == ["COMPLETE", "COMPLETE"]
    assert float(table(config)[0]["duration"]) >= 0
    assert best(config.paths.best)["optimizer"]["rate"] == study.best_params["rate"]


def test_lists_and_none_among_choices_are_shown_as_the_user_wrote_them(tmp_path: Path) -> None:
    choices = [None, [1, 2], "x"]
    entry: dict[str, Any] = {"type": "categorical", "settings": {"name": "opt", "choices": choices}}
    study, config = begin(tmp_path, parameters={"optimizer:name": entry})
    space = config.space
    for _ in range(30):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, trial.number)
    write_results(study, config)
    assert {row["opt"] for row in table(config)} == {"None", "[1, 2]", "x"}
    assert best(config.paths.best)["optimizer"]["name"] in choices


def test_an_empty_study_has_a_header_and_no_best(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    files = write_results(study, config)
    assert config.paths.results.read_text() == "number,state,duration,worker,device,rate,opt,val_loss,cause\n"
    assert (files.rows, files.best) == (0, ())
    add(study, config, state=TrialState.FAIL)
    write_results(study, config)
    assert not config.paths.best.exists()


def test_best_yml_is_the_model_with_the_best_values_and_what_the_objective_changed(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config, {"rate": 0.9, "opt": "sgd"}, values=[2.0])
    updates = {"layers": [{"units": 16}, {"units": 4}], "optimizer:momentum": 0.5, "optuna:x": 1}
    add(study, config, {"rate": 0.125, "opt": "adam"}, values=[0.5], updates=updates)
    write_results(study, config)
    assert best(config.paths.best) == {
        "optimizer": {"rate": 0.125, "name": "adam", "momentum": 0.5},
        "layers": [{"units": 16}, {"units": 4}],
        "optuna_free": True,
    }
    head = config.paths.best.read_text().splitlines()[:3]
    assert "'s'" in head[0]
    assert head[1:] == ["# trial: 1", "# val_loss: 0.5"]


def test_the_direction_decides_which_trial_is_best(tmp_path: Path) -> None:
    study, config = begin(tmp_path, direction="maximize")
    add(study, config, {"rate": 0.75}, values=[2.0])
    add(study, config, {"rate": 0.5}, values=[1.0])
    write_results(study, config)
    assert best(config.paths.best)["optimizer"]["rate"] == 0.75


def test_parameters_without_a_place_in_the_model_stand_in_the_comment(tmp_path: Path) -> None:
    plain = {"type": "int", "settings": {"low": 1, "high": 4}}
    study, config = begin(tmp_path, parameters={**PARAMETERS, "num_dense": plain})
    add(study, config, {"rate": 0.5, "num_dense": 3})
    write_results(study, config)
    assert "num_dense: 3" in config.paths.best.read_text()
    assert "num_dense" not in best(config.paths.best)


def test_each_pareto_trial_gets_a_file_and_overtaken_ones_lose_theirs(tmp_path: Path) -> None:
    study, config = begin(tmp_path, metric=["a", "b"], direction=["minimize", "maximize"])
    add(study, config, {"rate": 0.1}, values=[1.0, 1.0])
    add(study, config, {"rate": 0.2}, values=[2.0, 2.0])
    add(study, config, {"rate": 0.3}, values=[3.0, 1.5])
    other = config.paths.save_path / "best-9.yml"
    other.write_text("mine: 1\n")
    files = write_results(study, config)
    names = [path.name for path in files.best]
    assert names == ["best.yml", "best-0.yml", "best-1.yml"]
    assert best(config.paths.best) == best(config.paths.save_path / "best-0.yml")
    add(study, config, {"rate": 0.4}, values=[0.5, 3.0])
    assert [path.name for path in write_results(study, config).best] == ["best.yml", "best-3.yml"]
    assert sorted(p.name for p in config.paths.save_path.glob("best*")) == ["best-3.yml", "best-9.yml", "best.yml"]
    assert other.read_text() == "mine: 1\n"


def test_files_are_readable_by_others_and_nothing_is_left_over(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config)
    write_results(study, config)
    assert stat.S_IMODE(config.paths.results.stat().st_mode) & 0o600 == 0o600
    assert [name for name in os.listdir(config.paths.save_path) if "tmp" in name] == []


def test_files_can_be_deleted_and_rebuilt(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    add(study, config)
    write_results(study, config)
    files = (config.paths.results, config.paths.best)
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    write_results(load_study(config), config)
    assert [file.read_bytes() for file in files] == before


def test_the_writer_waits_for_its_interval(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    assert not ResultsWriter(study, config, interval=3600).maybe_write()
    assert not config.paths.results.exists()
    assert ResultsWriter(study, config, interval=0).maybe_write()
    assert config.paths.results.exists()


def test_the_writer_leaves_out_what_another_agent_has_just_written(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    mine, others = ResultsWriter(study, config, interval=0), ResultsWriter(study, config, interval=0)
    assert others.maybe_write()
    assert not mine.maybe_write()
    assert mine.maybe_write()


def test_a_write_that_fails_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, config = begin(tmp_path)
    writer = ResultsWriter(study, config, interval=0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aimlhpo.results.table.replace_file", full)
        assert not writer.maybe_write()
        assert not writer.maybe_write()
    assert caplog.text.count("No space left on device") == 1
    assert writer.maybe_write()


def _write_often(config: Config) -> None:
    study = load_study(config)
    for _ in range(8):
        write_results(study, config)


def test_agents_that_write_at_once_never_show_half_a_file(tmp_path: Path) -> None:
    study, config = begin(tmp_path)
    for number in range(50):
        add(study, config, {"rate": number / 100}, metrics={"text": "x" * 1000})
    write_results(study, config)
    whole = config.paths.results.read_text()
    writers = [get_context("spawn").Process(target=_write_often, args=(config,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert config.paths.results.read_text() == whole
        assert best(config.paths.best)["optimizer"]["rate"] == 0.0
    assert [writer.exitcode for writer in writers] == [0, 0]
