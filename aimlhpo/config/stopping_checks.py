"""Stopping rules that cannot work together with the rest of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

RULES = ("timeout", "target_value", "max_gpu_hours", "patience", "terminator")
"""All keys that end a study before `n_trials` does."""


def stopping_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Every stopping rule that can never hold, or that says nothing."""
    metrics = optuna.get("metric", "val_loss")
    names = [str(name) for name in metrics] if isinstance(metrics, list) else [str(metrics)]
    yield from _target(optuna.get("target_value"), names)
    yield from _gpu_hours(optuna)
    yield from _min_delta(optuna.get("patience"), names)
    yield from _terminator(optuna.get("terminator"), names)
    yield from _without_rule(optuna)


def _target(target: Any, metrics: list[str]) -> Iterator[Problem]:
    where = key_path("optuna", "target_value")
    if isinstance(target, Mapping):
        for name in target:
            if str(name) not in metrics:
                near = did_you_mean(name, metrics)
                yield Problem(key_path(where, name), "is no metric of the study", listing(metrics), near)
    elif target is not None and len(metrics) > 1:
        found = f"{show(target)} is one number for {len(metrics)} metrics"
        yield Problem(where, found, f"metric: number pairs, of {listing(metrics)}")


def _gpu_hours(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    if optuna.get("max_gpu_hours") is not None and optuna.get("gpu", False) in (False, 0):
        where = key_path("optuna", "max_gpu_hours")
        yield Problem(where, "counts the time of GPUs, and the study uses none", "gpu: true; or timeout, in seconds")


def _min_delta(patience: Any, metrics: list[str]) -> Iterator[Problem]:
    if isinstance(patience, Mapping) and patience.get("min_delta") and len(metrics) > 1:
        where = key_path("optuna", "patience", "min_delta")
        yield Problem(where, f"is one number for {len(metrics)} metrics", "trials alone, where there are several")


def _terminator(section: Any, metrics: list[str]) -> Iterator[Problem]:
    where = key_path("optuna", "terminator")
    entry = {"type": section} if isinstance(section, str) else section
    if not isinstance(entry, Mapping):
        return
    if len(metrics) > 1:
        yield Problem(
            where, f"judges one metric, and the study has {len(metrics)}", "target_value, patience or timeout"
        )
    improvement = entry.get("improvement_evaluator")
    kind = improvement.get("type") if isinstance(improvement, Mapping) else improvement
    if (
        entry.get("type") == "Terminator"
        and not entry.get("error_evaluator")
        and kind != "BestValueStagnationEvaluator"
    ):
        found = "is missing, and Optuna's default would need cross-validation scores from the objective"
        legal = "StaticErrorEvaluator with its constant, or MedianErrorEvaluator"
        yield Problem(key_path(where, "error_evaluator"), found, legal)


def _without_rule(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    if optuna.get("timeout_scope") is not None and optuna.get("timeout") is None:
        yield Problem(
            key_path("optuna", "timeout_scope"), "says what timeout counts, and there is none", "timeout, too"
        )
    if optuna.get("at_stop") == "prune" and all(optuna.get(key) is None for key in RULES):
        yield Problem(key_path("optuna", "at_stop"), "no rule ends the study early", f"one of {listing(RULES)}, too")
