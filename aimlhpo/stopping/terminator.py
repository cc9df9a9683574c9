"""Optuna's terminator as a rule: it weighs what may still be gained against the noise of the objective."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyFailed
from aimlhpo.stopping.rule import Moment, Rule


class Terminator(Rule):
    """What Optuna's `should_terminate` says of the complete trials, asked in a thread: it may take seconds."""

    key = "terminator"

    def __init__(self, entry: Mapping[str, Any], direction: StudyDirection, seed: int | None) -> None:
        self.limit = dict(entry)
        self._direction, self._seed = direction, seed
        self._trials: list[FrozenTrial] = []
        self._judged = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="terminator")
        self._judge: Any = None
        self._verdict: Future[bool] | None = None

    def take(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE:
            self._trials.append(trial)

    def __call__(self, moment: Moment) -> str | None:
        """Raises StudyFailed where the terminator cannot judge these trials at all."""
        verdict = self._verdict
        if verdict is not None and verdict.done():
            if self._read(verdict):
                return f"{self.limit['type']} sees no more to gain after {self._judged} complete trials"
            verdict = self._verdict = None
        if verdict is None and len(self._trials) > self._judged:
            self._judged = len(self._trials)
            view = Trials(tuple(self._trials), self._direction)
            self._verdict = self._thread.submit(self._should_terminate, view)
        return None

    def _should_terminate(self, view: Trials) -> bool:
        from aimlhpo.strategies.building import build

        if self._judge is None:
            self._judge = build("terminator", self.limit, self._seed)
        return bool(self._judge.should_terminate(view))

    def _read(self, verdict: Future[bool]) -> bool:
        try:
            return verdict.result()
        except Exception as error:
            raise StudyFailed(f"optuna: terminator: {self.limit['type']} cannot judge the trials: {error!r}") from error


class Trials:
    """The part of a study that a terminator reads."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        self.trials, self.direction = list(trials), direction

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]
