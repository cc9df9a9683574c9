"""Every misuse of the stopping rules is told by `aimlhpo check`, with the key and what is legal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aimlhpo.errors import ConfigError
from aimlhpo.search.stopping import STOPPING_RULES
from tests.project import Project

TWO = {"metric": ["a", "b"], "direction": ["minimize", "maximize"], "pruner": None}
STATIC = {"type": "StaticErrorEvaluator", "constant": 0.1}
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"timeout": -1}, "optuna: timeout", "too small"),
    ({"timeout": 5, "timeout_scope": "job"}, "optuna: timeout_scope", "legal: submission, study"),
    ({"timeout_scope": "study"}, "optuna: timeout_scope", "says what timeout counts, and there is none"),
    ({"target_value": "low"}, "optuna: target_value", "'low' is not a number"),
    ({"target_value": {}}, "optuna: target_value", "is empty"),
    ({"target_value": {"val_loss": "low"}}, "optuna: target_value", "val_loss is 'low', not a number"),
    ({"target_value": {"val_los": 1}}, "optuna: target_value: val_los", "did you mean: val_loss"),
    ({"target_value": 1, **TWO}, "optuna: target_value", "1 is one number for 2 metrics"),
    ({"max_gpu_hours": 0, "gpu": True}, "optuna: max_gpu_hours", "too small"),
    ({"max_gpu_hours": "many", "gpu": True}, "optuna: max_gpu_hours", "not a number"),
    ({"max_gpu_hours": 5}, "optuna: max_gpu_hours", "the study uses none"),
    ({"patience": 0}, "optuna: patience: trials", "too small"),
    ({"patience": "long"}, "optuna: patience", "'long' is not a whole number"),
    ({"patience": {"min_delta": 1}}, "optuna: patience: trials", "is missing"),
    ({"patience": {"trials": 5, "delta": 1}}, "optuna: patience: delta", "did you mean: min_delta"),
    ({"patience": {"trials": 5, "min_delta": -1}}, "optuna: patience: min_delta", "too small"),
    ({"patience": {"trials": 5, "min_delta": 1}, **TWO}, "optuna: patience: min_delta", "one number for 2 metrics"),
    ({"terminator": "Terminator"}, "optuna: terminator: error_evaluator", "would need cross-validation scores"),
    (
        {"terminator": {"type": "Terminators"}},
        "optuna: terminator: type",
        "did you mean: Terminator",
    ),
    (
        {"terminator": {"type": "Terminator", "error_evaluator": {"type": "StaticErrorEvaluator"}}},
        "optuna: terminator: error_evaluator: constant",
        "is missing",
    ),
    (
        {"terminator": {"type": "Terminator", "error_evaluator": STATIC, "min_n_trials": 0}},
        "optuna: terminator",
        "positive integer",
    ),
    ({"terminator": {"type": "Terminator", "error_evaluator": STATIC}, **TWO}, "optuna: terminator", "one metric"),
    ({"at_stop": "kill", "patience": 5}, "optuna: at_stop", "legal: finish, prune"),
    ({"at_stop": "prune"}, "optuna: at_stop", "no rule ends the study early"),
]


@pytest.mark.parametrize(("keys", "where", "told"), MISTAKES, ids=[str(mistake[0])[:60] for mistake in MISTAKES])
def test_mistakes_are_told(tmp_path: Path, keys: dict[str, Any], where: str, told: str) -> None:
    project = Project(tmp_path, **keys)
    with pytest.raises(ConfigError) as raised:
        _ = project.config
    assert [problem.where for problem in raised.value.problems] == [where]
    assert told in str(raised.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"timeout": 5, "timeout_scope": "study", "at_stop": "prune"},
        {"target_value": {"b": 0.9}, "patience": 3, **TWO},
        {"target_value": "1e-3", "patience": {"trials": 5, "min_delta": "1e-4"}},
        {"max_gpu_hours": 0.5, "gpu": True},
    ],
)
def test_what_is_legal(tmp_path: Path, keys: dict[str, Any]) -> None:
    _ = Project(tmp_path, **keys).config


def test_every_rule_is_named_where_one_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        _ = Project(tmp_path, at_stop="prune").config
    (problem,) = raised.value.problems
    ends_early = [key for key in STOPPING_RULES if key != "max_consecutive_failures"]  # which each study has
    assert problem.legal == f"one of {', '.join(ends_early)}, too"
