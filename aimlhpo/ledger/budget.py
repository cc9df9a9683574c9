"""How many trials must finish, held against those that have, and those that somebody runs."""

from __future__ import annotations

from functools import cached_property

import optuna

from aimlhpo.backends import Overview
from aimlhpo.counts import Counts, count_overview
from aimlhpo.taken import number_taken


class Budget:
    """`n_trials` of the study's own that end COMPLETE or PRUNED; None: as many as its queue gives."""

    def __init__(self, study: optuna.Study, n_trials: int | None) -> None:
        self._study, self._n_trials = study, n_trials

    def counts(self, overview: Overview) -> Counts:
        return count_overview(overview, self._taken)

    def unfinished(self, counts: Counts) -> int | None:
        """How many trials have still to finish."""
        return None if self._n_trials is None else self._n_trials - counts.finished

    def left(self, counts: Counts) -> int | None:
        """How many of these nobody has claimed yet."""
        unfinished = self.unfinished(counts)
        return None if unfinished is None else unfinished - counts.claimed - counts.paused

    @cached_property
    def _taken(self) -> tuple[int, int]:
        """COMPLETE and PRUNED trials of other studies: they came before the first claim, and no more come."""
        return number_taken(self._study)
