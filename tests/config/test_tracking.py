"""The keys under `log` that say which tracking tools are told of the trials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aimlhpo.config.load import load_snapshot
from tests.files import Files


def test_off_unless_asked_for(files: Files) -> None:
    for log in ("", "log: true", "log: {mlflow: false, tensorboard: null}"):
        loaded = files.write(above=log).load().log
        assert loaded.mlflow is None
        assert loaded.tensorboard is None


def test_everything_has_a_place_by_default(files: Files, tmp_path: Path) -> None:
    log = files.write(above="log: {save_path: out, mlflow: true, tensorboard: true}").load().log
    assert log.mlflow is not None
    assert log.tensorboard is not None
    assert log.mlflow.uri == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert log.mlflow.experiment == "s"
    assert log.tensorboard.directory == f"{tmp_path}/out/tensorboard"


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("http://host:5000", "http://host:5000"),
        ("sqlite:///runs.db", "sqlite:///{here}/runs.db"),
        ("runs", "{here}/runs"),
        ("file:///data/runs", "file:///data/runs"),
        ("http://${TRACKING_HOST}:5000", "http://${TRACKING_HOST}:5000"),
    ],
)
def test_places_are_made_absolute(given: str, uri: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKING_HOST", "host")
    for log in (f"log: {{mlflow: '{given}'}}", f"log: {{mlflow: {{uri: '{given}', experiment: e}}}}"):
        mlflow = files.write(above=log).load().log.mlflow
        assert mlflow is not None
        assert mlflow.uri == uri.replace("{here}", os.getcwd())


def test_the_command_line_can_ask_for_them(files: Files) -> None:
    log = files.load("log:mlflow=http://host:5000", "log:tensorboard=true").log
    assert log.mlflow is not None
    assert log.mlflow.uri == "http://host:5000"
    assert log.tensorboard is not None


def test_the_copy_beside_the_study_says_the_same(files: Files) -> None:
    config = files.write(above="log: {mlflow: runs, tensorboard: true}").load()
    config.write_snapshot()
    assert load_snapshot(config.paths).log == config.log


@pytest.mark.parametrize(
    ("log", "where", "words"),
    [
        ("{mlflow: {url: x}}", "log: mlflow: url", ["unknown key", "did you mean: uri"]),
        ("{ml_flow: true}", "log: ml_flow", ["unknown key", "did you mean: mlflow"]),
        ("{tensorboard: {dir: x}}", "log: tensorboard: dir", ["unknown key", "legal: directory"]),
        ("{mlflow: 7}", "log: mlflow", ["7 is not a mapping", "true, a URI"]),
        ("{tensorboard: [a]}", "log: tensorboard", ["is not a mapping", "true, a directory"]),
        ("{mlflow: {uri: ''}}", "log: mlflow: uri", ["is empty"]),
        ("{mlflow: 'localhost:5000'}", "log: mlflow: uri", ["has no scheme", "did you mean: http://localhost:5000"]),
        ("{mlflow: 'htp://host'}", "log: mlflow: uri", ["scheme 'htp' is not known", "did you mean: http://..."]),
        ("{mlflow: 'http://'}", "log: mlflow: uri", ["names no server"]),
        ("{mlflow: 'sqlite://runs.db'}", "log: mlflow: uri", ["names no file", "sqlite:///FILE"]),
        ("{mlflow: 'http://${NOT_SET_HERE}/'}", "log: mlflow: uri", ["${NOT_SET_HERE} is not set"]),
        ("{tensorboard: 'http://host'}", "log: tensorboard: directory", ["is a URL", "a directory"]),
    ],
)
def test_mistakes(log: str, where: str, words: list[str], files: Files) -> None:
    problem = str(files.write(above=f"log: {log}").problems()[where])
    for word in words:
        assert word in problem
    assert len(problem.splitlines()) <= 4


def test_credentials_in_the_uri_are_refused_and_not_shown(files: Files) -> None:
    problem = str(files.write(above="log: {mlflow: 'https://me:secret@host/x'}").problems()["log: mlflow: uri"])
    assert "https://host/x, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in problem
    assert "secret" not in problem


def test_mistakes_come_with_all_others(files: Files) -> None:
    found = files.write("n_trails: 5", above="log: {mlflow: 'localhost:5000'}").problems()
    assert {"log: mlflow: uri", "optuna: n_trails"} <= set(found)
