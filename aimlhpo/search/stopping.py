"""The note that a rule has ended the study: kept in the study, so that every agent and every later look agrees.
The rules of a study at work: what they have seen so far, and the first that holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.stopping_rules import GpuHours, Moment, PatienceRule, Rule, TargetValue, Terminator, Timeout
from aimlhpo.storage.base import Overview
from aimlhpo.storage.locks import locked
from aimlhpo.storage.owned import backend_of
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.trials import count_imported, count_overview, is_own

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config
    from aimlhpo.storage.trials import Counts

NOTE = "aimlhpo:ended"
"""User attribute of the study."""


@dataclass(frozen=True)
class StopReason:
    """Which rule ended the study and why; `at` in seconds since the epoch, None where nobody noted it."""

    rule: str
    reason: str
    at: float | None = field(default_factory=time.time)
    limit: Any = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


def read_note(study: optuna.Study, rules: Sequence[Rule]) -> StopReason | None:
    """The note, where one of the rules left it with the limit that it has now, by the study's last start."""
    attributes = study._storage.get_study_user_attrs(study._study_id)
    for each in rules:
        each.hear(attributes.get(STUDY_ATTR, {}))
    known = {each.key: each.limit for each in rules}
    note = attributes.get(NOTE)
    if not isinstance(note, Mapping):
        return None
    rule, limit = note.get("rule"), note.get("limit")
    return (
        StopReason(str(rule), str(note.get("reason")), note.get("at"), limit) if known.get(str(rule)) == limit else None
    )


def write_note(study: optuna.Study, ended: StopReason) -> None:
    study.set_user_attr(NOTE, asdict(ended))


def find_stop_reason(study: optuna.Study, config: Config, counts: Counts) -> StopReason | None:
    """What has ended the study, the number of trials included; None where it goes on."""

    budget = config.optuna.n_trials
    if counts.finished >= budget:
        return StopReason("n_trials", f"{counts.finished} of {budget} trials are finished", None, budget)
    return read_note(study, make_rules(study, config))


class StoppingCriteria:
    """Asks the rules on behalf of one agent. The caller holds the ledger's lock.

    Trials are read only when the number of ended ones has changed, and each is looked at until it has ended.
    """

    def __init__(self, study: optuna.Study, rules: Sequence[Rule]) -> None:
        self._study, self._rules = study, rules
        self._ended: StopReason | None = None
        self._taken = 0
        self._seen = 0
        self._pending: set[int] = set()

    def ended(self, overview: Overview) -> StopReason | None:
        """Which rule has ended the study: as another agent has noted, or as the rules say now, which is noted."""
        if self._ended is None:
            self._ended = read_note(self._study, self._rules) or self._judge(overview)
        return self._ended

    def _judge(self, overview: Overview) -> StopReason | None:
        if overview.complete + overview.pruned + overview.failed != self._taken:
            self._take(self._study.get_trials(deepcopy=False))
        moment = Moment(overview.open)
        for rule in self._rules:
            reason = rule(moment)
            if reason is not None:
                ended = StopReason(rule.key, reason, moment.now, rule.limit)
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


class ThrottledCheck:
    """Asks, at most once in `period` seconds, whether a rule has ended the study: for those who do not claim."""

    def __init__(self, ask: Callable[[], StopReason | None], period: float = 3.0) -> None:
        self._ask, self._period = ask, period
        self._due = 0.0
        self._ended: StopReason | None = None

    def ended(self) -> bool:
        if self._ended is None and time.monotonic() >= self._due:
            self._ended = self._ask()
            self._due = time.monotonic() + self._period
        return self._ended is not None


def make_stopping_criteria(study: optuna.Study, config: Config) -> StoppingCriteria | None:
    """The rules of the configuration, where it has any besides `n_trials`; the study says when it was started."""
    rules = make_rules(study, config)
    return StoppingCriteria(study, rules) if rules else None


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
        rules.append(PatienceRule(options.patience.trials, options.patience.min_delta, options.direction))
    if options.terminator is not None:
        entry = {"type": options.terminator.type, **options.terminator.arguments}
        rules.append(Terminator(entry, study.direction, _seed(study)))
    return rules


def _seed(study: optuna.Study) -> int | None:
    seed = study.user_attrs.get(STUDY_ATTR, {}).get("seed")
    return None if seed is None else int(seed)


def ended_already(study: optuna.Study, config: Config) -> StopReason | None:
    """What ends a study before it is started (again), the number of trials included."""
    backend = backend_of(study._storage)
    with locked(config.paths.lock):
        overview = backend.overview(study._study_id)
        # What runs may belong to an agent that died long ago: its time is not known before it is released.
        waiting = [trial for trial in overview.open if trial.state == TrialState.WAITING]
        stops = make_stopping_criteria(study, config)
        known = find_stop_reason(study, config, count_overview(overview, count_imported(study)))
        return known or (stops.ended(replace(overview, open=waiting)) if stops else None)
