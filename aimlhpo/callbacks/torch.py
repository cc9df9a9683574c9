"""Reporting and pruning in a plain torch loop, alone or with data parallel ranks."""

from __future__ import annotations

import sys
from typing import Any

from aimlhpo.callbacks import is_due, prune


def report_or_prune(trial: Any, value: Any, step: int, interval: int = 1) -> None:
    """Report `value` of `step` at every `interval`-th step, and end the trial if the pruner has decided so.

    With torch.distributed, every rank calls this: rank 0 reports, and all ranks act on its answer.

    Args:
        trial: the trial that `train` was given.
        value: the study's metric: a number, or a tensor that holds one.
        step: counted from 0, such as the epoch.
        interval: 1 reports at every step, 5 at the steps 4, 9, 14 and so on.

    Raises optuna.TrialPruned when the trial is to end, and ValueError when interval < 1.
    """
    if not is_due(step, interval):
        return
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)  # looked up, not imported
    several_ranks = (
        distributed is not None
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
    answer = [False]
    if not several_ranks or distributed.get_rank() == 0:
        trial.report(float(value), step)
        answer = [bool(trial.should_prune())]
    if several_ranks:
        distributed.broadcast_object_list(answer, src=0)
    if answer[0]:
        prune(step)
