"""Reporting and pruning in a plain torch loop, alone or with data parallel ranks."""

from __future__ import annotations

import sys
from typing import Any

from aimlhpo.callbacks.decision import is_due, prune, report_and_ask


def report_or_prune(trial: Any, value: Any, step: int, interval: int = 1) -> None:
    """Report `value` of `step` (counted from 0) at every `interval`-th step, and end the trial if it lags.

    With torch.distributed, every rank calls this: rank 0 reports, and all ranks act on its answer.
    Raises optuna.TrialPruned when the pruner has decided so.
    """
    if is_due(step, interval) and _decide(trial, value, step):
        prune(step)


def _decide(trial: Any, value: Any, step: int) -> bool:
    distributed = _process_group()
    if distributed is None:
        return report_and_ask(trial, value, step)
    answer = [report_and_ask(trial, value, step) if distributed.get_rank() == 0 else False]
    distributed.broadcast_object_list(answer, src=0)
    return answer[0]


def _process_group() -> Any:
    """torch.distributed when this process is one of several ranks; looked up, not imported."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed if distributed.get_world_size() > 1 else None
