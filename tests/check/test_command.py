"""Every mistake in a command is told with its key before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimlhpo.check.check import check
from aimlhpo.check.settings import load_config
from aimlhpo.config.command import command_spec
from aimlhpo.config.load import load_snapshot
from aimlhpo.config.schema import Config
from aimlhpo.errors import ConfigError, Problem

RATE = {"type": "float", "settings": {"name": "rate", "low": 0.0, "high": 1.0}}
DEEP = {"type": "categorical", "settings": {"choices": [True, False]}}


def load(folder: Path, command: Any = "python train.py {parameters}", **optuna: Any) -> Config:
    settings = {"name": "s", "n_trials": 2, "save_path": str(folder), "parameters": {"optimizer:rate": RATE}}
    given = {**settings, "command": command, **optuna}
    path, model = folder / "hyperparameters.yml", folder / "model.yml"
    path.write_text(yaml.safe_dump({"optuna": {key: value for key, value in given.items() if value is not None}}))
    model.write_text(yaml.safe_dump({"optimizer": {"rate": 0.5}}))
    return load_config(path, model)


def problems(folder: Path, *arguments: Any, **optuna: Any) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load(folder, *arguments, **optuna)
    return {problem.where: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python train.py {parameters}", ("python", "train.py", "{parameters}")),
        ("./run --config {config}", ("./run", "--config", "{config}")),
        ("run --config={config.json} -n {trial} --out={checkpoint_dir}", None),
        ("run --rate={rate}", None),
        ("run --rate={optimizer:rate}", None),
        ("run --json='{{\"rate\": {rate}}}'", ("run", '--json={{"rate": {rate}}}')),
        ("python train.py\n  {parameters}\n", ("python", "train.py", "{parameters}")),
    ],
)
def test_good_commands(tmp_path: Path, command: str, words: tuple[str, ...] | None) -> None:
    spec = command_spec(load(tmp_path, command))
    assert spec is not None
    assert words in (None, spec.words)


@pytest.mark.parametrize(
    ("command", "found", "hint"),
    [
        ("run {paramters}", "unknown placeholder {paramters}", "{parameters}"),
        ("run {parameters} {rat}", "unknown placeholder {rat}", "{rate}"),
        ("run {parameters} {}", "unknown placeholder {}", None),
        ("run --all={parameters}", "inside of '--all={parameters}'", None),
        ("run 'x {parameters}", "quotation mark is not closed", None),
        ("run {parameters} x}", "a } stands alone", None),
        ("{rate} x", "begins with the placeholder", None),
        ("CUDA=1 run {parameters}", "begins with 'CUDA=1'", None),
        ("run {parameters} | tee log", "'|' is for a shell", None),
        ("cd x && run {parameters}", "'&&' is for a shell", None),
        ("run {parameters} $(date)", "'$(date)' is for a shell", None),
        ("run --nothing", "does not hand over the parameter rate", None),
        ("''", "is empty", None),
        ("", "is empty", None),
        (["run", "x"], "is not text", None),
    ],
)
def test_bad_commands(tmp_path: Path, command: Any, found: str, hint: str | None) -> None:
    problem = problems(tmp_path, command)["optuna: command"]
    assert found in problem.found
    assert hint is None or problem.suggestion == hint


def test_plain_parameter_does_not_arrive_with_the_config(tmp_path: Path) -> None:
    parameters = {"optimizer:rate": RATE, "depth": {"type": "int", "settings": {"low": 1, "high": 2}}}
    assert "depth" in problems(tmp_path, "run {config}", parameters=parameters)["optuna: command"].found


def test_command_and_objective(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text("")
    told = problems(tmp_path, objective=str(tmp_path / "objective.py"))["optuna: command"]
    assert told.legal == "one of the two"


def test_neither_command_nor_objective(tmp_path: Path) -> None:
    told = {problem.where: str(problem) for problem in check(load(tmp_path, None))}
    assert "`command`" in told["optuna: objective"]


@pytest.mark.parametrize(
    ("pass_as", "found"),
    [
        ("--rate={value}", "unknown placeholder {value}"),
        ("--rate", "has no {v}"),
        ("'--rate={v}", "quotation mark"),
        ("--rate={v", "stands alone"),
        (["--rate", "{v}"], "is not text"),
        ("", "is empty"),
    ],
)
def test_bad_pass_as(tmp_path: Path, pass_as: Any, found: str) -> None:
    told = problems(tmp_path, parameters={"optimizer:rate": {**RATE, "pass-as": pass_as}})
    assert found in told["optuna: parameters: optimizer:rate: pass-as"].found


def test_flag_needs_no_place_for_its_value(tmp_path: Path) -> None:
    spec = command_spec(load(tmp_path, parameters={"deep": {**DEEP, "pass-as": "--deep"}}))
    assert spec is not None
    assert spec.pass_as == {"deep": "--deep"}


def test_misspelled_pass_as_is_known_by_its_own_name(tmp_path: Path) -> None:
    told = problems(tmp_path, parameters={"optimizer:rate": {**RATE, "pass_as": "--r={v}"}})
    assert told["optuna: parameters: optimizer:rate: pass_as"].suggestion == "pass-as"


@pytest.mark.parametrize("extra", [{"working_directory": "."}, {"environment": {"A": "b"}}])
def test_keys_that_mean_nothing_without_a_command(tmp_path: Path, extra: Mapping[str, Any]) -> None:
    (tmp_path / "objective.py").write_text("")
    told = problems(tmp_path, None, objective=str(tmp_path / "objective.py"), **extra)
    assert "`command`" in told[f"optuna: {next(iter(extra))}"].found


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"A=B": "c"}, "optuna: environment"),
        ({"": "c"}, "optuna: environment"),
        ({"A": ["c"]}, "optuna: environment"),
        ({"A": None}, "optuna: environment"),
        (["A=c"], "optuna: environment"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "optuna: environment: CUDA_VISIBLE_DEVICES"),
        ({"A": "${NOT_SET_ANYWHERE}"}, "optuna: environment: A"),
    ],
)
def test_bad_environment(tmp_path: Path, environment: Any, where: str) -> None:
    assert where in problems(tmp_path, environment=environment)


def test_missing_working_directory(tmp_path: Path) -> None:
    told = problems(tmp_path, working_directory=str(tmp_path / "none"))
    assert "no such directory" in told["optuna: working_directory"].found


def test_jobs_get_the_same_command(tmp_path: Path) -> None:
    parameters = {"optimizer:rate": {**RATE, "pass-as": "--r {v}"}}
    config = load(tmp_path, parameters=parameters, environment={"A": 1, "B": True}, working_directory=str(tmp_path))
    config.paths.create()
    config.write_snapshot()
    spec = command_spec(load_snapshot(config.paths))
    assert spec == command_spec(config)
    assert spec is not None
    assert (spec.pass_as, spec.variables) == ({"rate": "--r {v}"}, {"A": "1", "B": "true"})


def test_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("")
    for program in ("no-such-program", "./no-such-program", "./text", str(tmp_path)):
        told = {problem.where: problem for problem in check(load(tmp_path, f"{program} {{parameters}}"))}
        assert "no program" in told["optuna: command"].found


def test_python_that_is_not_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("")
    config = load(tmp_path, working_directory=str(tmp_path), environment={"PATH": str(tmp_path)})
    assert [problem.suggestion for problem in check(config)] == ["{python}"]
    assert check(load(tmp_path, "{python} train.py {parameters}", working_directory=str(tmp_path))) == []


def test_script_that_is_not_there(tmp_path: Path) -> None:
    config = load(tmp_path, f"{sys.executable} train.py {{parameters}}", working_directory=str(tmp_path))
    (problem,) = check(config)
    assert "no file 'train.py'" in problem.found
    (tmp_path / "train.py").write_text("")
    assert check(config) == []


def test_jobs_bring_their_own_programs(tmp_path: Path) -> None:
    config = load(tmp_path, "no-such-program {parameters}")
    path = tmp_path / "hyperparameters.yml"
    slurm = {"jobs": 1, "bash": ["module load it"], "batch": {"t": "1:00:00"}}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "slurm": slurm}))
    told = [problem.where for problem in check(load_config(path, tmp_path / "model.yml"))]
    assert config.optuna.command is not None
    assert "optuna: command" not in told
