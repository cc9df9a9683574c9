"""Warm starts through the command, with real workers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimlhpo.check.check import check
from aimlhpo.cli.main import main
from aimlhpo.errors import ConfigError
from aimlhpo.search.warm_start import default_trial
from aimlhpo.storage.trials import is_own
from tests.project import QUADRATIC, Project


def own_states(project: Project) -> list[str]:
    return [trial.state.name for trial in project.study().trials if is_own(trial)]


def test_the_budget_is_of_own_trials_and_the_others_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = Project(tmp_path / "first", name="first", n_trials=4, enqueue=[{"x": 0.5}])
    first.run()
    second = Project(tmp_path / "second", name="second", n_trials=3, warm_start_from=str(first.save_path))
    would = second.run(verb="check").stdout
    assert "4 of 4 trials of study first taken over" in would
    assert not second.save_path.exists()
    told = second.run("--local", "2").stdout
    assert "4 of 4 trials of study first taken over" in told
    assert own_states(second) == ["COMPLETE"] * 3
    assert [trial.number for trial in second.study().trials if not is_own(trial)] == [0, 1, 2, 3]

    best = "(trial 0, taken over from trial 0 of first)"
    assert best in told
    assert main(["status", str(second.save_path)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 done" in shown
    assert "warm     4 of 4 trials of study first taken over" in shown
    assert best in shown
    assert main(["status", str(second.save_path), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"]["complete"] == 3
    assert status["best"][0]["origin"] == "taken over from trial 0 of first"
    comment = (second.save_path / "best.yml").read_text().splitlines()[1]
    assert comment == "# trial: 0 (taken over from trial 0 of first)"
    with (second.save_path / "results.csv").open() as table:
        causes = [row["cause"] for row in csv.DictReader(table)]
    assert causes == [f"taken over from trial {number} of first" for number in range(4)] + [""] * 3

    second.run("-r", "1", expect=3)
    second.run("-r", "1", "-t", "5", "--local", "2")
    assert own_states(second) == ["COMPLETE"] * 5


def test_a_grid_and_a_warm_start_exclude_each_other(tmp_path: Path) -> None:
    parameters = {"model:x": {"type": "multiple", "settings": {"values": [0.0, 0.5]}}}
    project = Project(
        tmp_path, parameters=parameters, sampler=None, enqueue_default=True, warm_start_from={"study_name": "other"}
    )
    with pytest.raises(ConfigError) as raised:
        _ = project.config
    assert [problem.where for problem in raised.value.problems] == [
        "optuna: enqueue_default",
        "optuna: warm_start_from",
    ]


# --- the model's own values ---


def test_the_models_own_values_are_the_first_trial_once(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=3, enqueue_default=True, enqueue=[{"model:x": 0.1}])
    project.run()
    project.run("-r", "1", "-t", "5")
    values = [trial.params["x"] for trial in project.study().trials]
    assert values[:2] == [0.9, 0.1]
    assert values.count(0.9) == 1


def with_model(folder: Path, model: Any, **parameters: dict[str, Any]) -> Project:
    declared = {key.replace("__", ":"): entry for key, entry in parameters.items()}
    project = Project(folder, QUADRATIC, enqueue_default=True, parameters=declared)
    project.model.write_text(yaml.safe_dump(model))
    return project


def number(low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"type": "float", "settings": {"low": low, "high": high}, **more}


def test_every_kind_of_default(tmp_path: Path) -> None:
    project = with_model(
        tmp_path,
        {"net": {"kind": "b", "width": 16, "only_a": 99.0}, "scale": 3, "seen": 6},
        net__kind={"type": "categorical", "settings": {"choices": ["a", "b"]}},
        net__width={"type": "ordinal", "settings": {"choices": [8, 16]}},
        net__only_a=number(0, 1, dependency={
            "type": "optimize_iff", "on": "net:kind", "conditions": [{"type": "equal", "compare_value": "a"}],
        }),
        seen={"type": "int", "settings": {"low": 1, "high": 4}, "dependency": {"type": "multiply", "on": "scale"}},
    )  # fmt: skip
    assert default_trial(project.config) == {"net:kind": "b", "net:width": 16, "seen": 2}


@pytest.mark.parametrize(
    ("parameters", "where", "told"),
    [
        ({"net__x": number(0, 0.5)}, "net:x", "0.9, the model's own value, is not in the search space"),
        ({"net__name": number(0, 1)}, "net:name", "'deep', the model's own value, is not in the search space"),
        ({"depth": number(0, 1)}, "depth", "has no value in the model YAML"),
    ],
)
def test_a_value_that_cannot_be_run_is_told(tmp_path: Path, parameters: dict[str, Any], where: str, told: str) -> None:
    project = with_model(tmp_path, {"net": {"x": 0.9, "name": "deep"}, "model": {"x": 1}}, **parameters)
    (problem,) = check(project.config)
    assert problem.where == f"optuna: enqueue_default: {where}"
    assert told in problem.found
