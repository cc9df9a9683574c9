"""What becomes of a trial that ran out of memory."""

from __future__ import annotations

from dataclasses import replace

from aimlhpo.protocol import PRUNED, Outcome

OUT_OF_MEMORY = "out of memory"


def after_out_of_memory(outcome: Outcome, policy: str) -> Outcome:
    """The outcome as `on_oom` wants it; the cause stays with the trial."""
    return replace(outcome, state=PRUNED) if policy == "prune" else outcome
