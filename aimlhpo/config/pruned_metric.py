"""Pruning in a study with several metrics: by one of them, which the pruner names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

_WHERE = key_path("optuna", "pruner", "metric")


def pruned_metric_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """A metric that the study does not have, or none where it has several."""
    pruner = optuna.get("pruner")
    pruner = {"type": pruner} if isinstance(pruner, str) else pruner
    if not isinstance(pruner, Mapping):
        return
    metrics = optuna.get("metric", "val_loss")
    known = [str(name) for name in (metrics if isinstance(metrics, list) else [metrics])]
    given = pruner.get("metric")
    if given is None and len(known) > 1 and pruner.get("type") != "NopPruner":
        yield Problem(_WHERE, f"is missing, and the study has {len(known)} metrics", f"one of {listing(known)}")
    elif isinstance(given, str) and given not in known:
        yield Problem(_WHERE, f"{show(given)} is no metric of the study", listing(known), did_you_mean(given, known))


def reported_metric(metrics: list[str], named: str | None) -> int | None:
    """The position of the metric that trials report: the only one, or the one that the pruner names."""
    if named in metrics:
        return metrics.index(named)
    return 0 if len(metrics) == 1 else None
