"""The rules of a study at work: what they have seen so far, and the first that holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends import backend_of
from aimlhpo.backends.backend import Overview
from aimlhpo.counts import count_overview
from aimlhpo.locks import locked
from aimlhpo.stopping.ended import Ended, ending_of, read_note, write_note
from aimlhpo.stopping.rule import Moment, Rule
from aimlhpo.stopping.rules import GpuHours, Patience, TargetValue, Timeout
from aimlhpo.stopping.terminator import Terminator
from aimlhpo.storage import STUDY_ATTR
from aimlhpo.taken import is_own, number_taken

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config


class Stops:
    """Asks the rules on behalf of one agent. The caller holds the ledger's lock.

    Trials are read only when the number of ended ones has changed, and each is looked at until it has ended.
    """

    def __init__(self, study: optuna.Study, rules: Sequence[Rule]) -> None:
        self._study, self._rules = study, rules
        self._ended: Ended | None = None
        self._taken = 0
        self._seen = 0
        self._pending: set[int] = set()

    def ended(self, overview: Overview) -> Ended | None:
        """Which rule has ended the study: as another agent has noted, or as the rules say now, which is noted."""
        if self._ended is None:
            self._ended = read_note(self._study, self._rules) or self._judge(overview)
        return self._ended

    def _judge(self, overview: Overview) -> Ended | None:
        if overview.complete + overview.pruned + overview.failed != self._taken:
            self._take(self._study.get_trials(deepcopy=False))
        moment = Moment(overview.open)
        for rule in self._rules:
            reason = rule(moment)
            if reason is not None:
                ended = Ended(rule.key, reason, moment.now, rule.limit)
                write_note(self._study, ended)
                return ended
        return None

    def _take(self, trials: Sequence[FrozenTrial]) -> None:
        """Give the rules all trials that have ended since the last look."""
        looked_at = [trials[number] for number in sorted(self._pending)] + list(trials[self._seen :])
        self._seen = len(trials)
        self._pending = {trial.number for trial in looked_at if not trial.state.is_finished()}
        ended = [trial for trial in looked_at if trial.state.is_finished()]
        self._taken += len(ended)
        for trial in sorted(filter(is_own, ended), key=_end):
            for rule in self._rules:
                rule.take(trial)


def _end(trial: FrozenTrial) -> tuple[float, int]:
    return trial.datetime_complete.timestamp() if trial.datetime_complete else 0.0, trial.number


class Look:
    """Asks, at most once in `period` seconds, whether a rule has ended the study: for those who do not claim."""

    def __init__(self, ask: Callable[[], Ended | None], period: float = 3.0) -> None:
        self._ask, self._period = ask, period
        self._due = 0.0
        self._ended: Ended | None = None

    def ended(self) -> bool:
        if self._ended is None and time.monotonic() >= self._due:
            self._ended = self._ask()
            self._due = time.monotonic() + self._period
        return self._ended is not None


def make_stops(study: optuna.Study, config: Config) -> Stops | None:
    """The rules of the configuration, where it has any besides `n_trials`; the study says when it was started."""
    rules = make_rules(study, config)
    return Stops(study, rules) if rules else None


def make_rules(study: optuna.Study, config: Config) -> list[Rule]:
    """In the order in which they are asked."""
    options = config.optuna
    rules: list[Rule] = []
    if options.timeout is not None:
        rules.append(Timeout(options.timeout, options.timeout_scope))
    if options.target_value is not None:
        rules.append(TargetValue(options.targets, options.metric, options.direction))
    if options.max_gpu_hours is not None:
        rules.append(GpuHours(options.max_gpu_hours))
    if options.patience is not None:
        rules.append(Patience(options.patience.trials, options.patience.min_delta, options.direction))
    if options.terminator is not None:
        entry = {"type": options.terminator.type, **options.terminator.arguments}
        rules.append(Terminator(entry, study.direction, _seed(study)))
    return rules


def _seed(study: optuna.Study) -> int | None:
    seed = study.user_attrs.get(STUDY_ATTR, {}).get("seed")
    return None if seed is None else int(seed)


def ended_already(study: optuna.Study, config: Config) -> Ended | None:
    """What ends a study before it is started (again), the number of trials included."""
    backend = backend_of(study._storage)
    with locked(config.paths.lock):
        overview = backend.overview(study._study_id)
        # What runs may belong to an agent that died long ago: its time is not known before it is released.
        waiting = [trial for trial in overview.open if trial.state == TrialState.WAITING]
        stops = make_stops(study, config)
        known = ending_of(study, config, count_overview(overview, number_taken(study)))
        return known or (stops.ended(replace(overview, open=waiting)) if stops else None)
