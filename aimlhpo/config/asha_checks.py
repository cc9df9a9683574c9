"""What ASHA by promotion asks of the rest of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aimlhpo.config.values import as_number
from aimlhpo.errors import Problem
from aimlhpo.suggestions import key_path

PROMOTION = "promotion"
_PRUNER = ("optuna", "pruner")
_WORD = "checkpoint"


def asha_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Where trials would pause and nothing would come of it."""
    pruner = optuna.get("pruner")
    if not isinstance(pruner, Mapping):
        return
    yield from _wrapped(pruner.get("wrapped_pruner"))
    if pruner.get("type") == "ASHA" and pruner.get("mode") == PROMOTION:
        yield from _too_few(optuna, pruner)
        yield from _no_checkpoints(optuna)


def _wrapped(inner: Any) -> Iterator[Problem]:
    if isinstance(inner, Mapping) and inner.get("mode") == PROMOTION:
        found = "promotion is no decision to prune, which another pruner could wrap"
        yield Problem(key_path(*_PRUNER, "wrapped_pruner", "mode"), found, "stopping; or ASHA as the pruner itself")


def _too_few(optuna: Mapping[str, Any], pruner: Mapping[str, Any]) -> Iterator[Problem]:
    """With fewer trials, nobody would be promoted past the last rung, and none would be complete."""
    n_trials = as_number(optuna.get("n_trials"))
    rungs = _rungs(pruner)
    if n_trials is None or not rungs:
        return
    least = as_number(pruner.get("reduction_factor", 3)) or 3
    needed = int(least ** len(rungs))
    if n_trials < needed:
        where = ", ".join(map(str, rungs))
        found = f"{n_trials} trials cannot fill the rungs at {where}: none would be promoted to the end"
        yield Problem(key_path("optuna", "n_trials"), found, f"{needed} or more; or a larger min_resource")


def _rungs(pruner: Mapping[str, Any]) -> list[int]:
    """The rungs of the lowest bracket; none where a number is missing or wrong, which is told elsewhere."""
    from aimlhpo.asha.rungs import Ladder

    low, high, factor = (as_number(pruner.get(key, default)) for key, default in _RESOURCES.items())
    numbers = [number for number in (low, high, factor) if isinstance(number, int)]
    if len(numbers) < len(_RESOURCES) or numbers[0] < 1 or numbers[2] < 2 or as_number(pruner.get("brackets", 1)) != 1:
        return []
    return Ladder(*numbers).resources


_RESOURCES = {"min_resource": 1, "max_resource": None, "reduction_factor": 3}


def _no_checkpoints(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Neither the objective nor a module beside it mentions a checkpoint: every promoted trial would begin anew."""
    objective = optuna.get("objective")
    if not isinstance(objective, str) or not Path(objective).is_file():
        return
    beside = sorted(Path(objective).parent.glob("*.py"))
    if not any(_WORD in path.read_text(errors="replace").lower() for path in beside):
        found = f"{objective} saves no checkpoint, so a promoted trial would begin anew"
        legal = "stopping; or save the training's state in trial.checkpoint_dir before each report"
        yield Problem(key_path(*_PRUNER, "mode"), found, legal)
