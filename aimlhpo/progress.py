"""What a running agent tells its live view: plain numbers, no storage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SlotState:
    """One slot: the trial it runs (None when idle), for how many seconds, and its last (step, value)."""

    slot: int
    device: str
    trial: int | None = None
    seconds: float = 0.0
    last_report: tuple[int, float] | None = None


@dataclass(frozen=True)
class Progress:
    """The study's counts and this agent's slots at one moment.

    `paused` trials wait to be promoted, `n_trials` is the budget of complete + pruned trials (None: no budget), `best`
    is (trial number, value), `elapsed` and `eta` are seconds, `rate` is finished trials per second of this run.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    paused: int = 0
    n_trials: int | None = None
    best: tuple[int, float] | None = None
    slots: tuple[SlotState, ...] = ()
    elapsed: float = 0.0
    rate: float | None = None
    eta: float | None = None

    @property
    def finished(self) -> int:
        """Trials that count against the budget."""
        return self.complete + self.pruned
