"""Whether a stopping rule has ended a study, and which one.

An agent that finds that a rule holds leaves a note in the study, so that all other agents and all later commands agree
with it. A note counts as long as the configuration has its rule with the same limit: once the rule is changed, the
study can be continued.

`StoppingCriteria` runs in an agent's storage thread, under the ledger's lock: it is asked at each claim.
`find_stop_reason` and `ended_already` are for the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.stopping_rules import STOPPING_RULES, Moment, Rule
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
"""User attribute of the study: a StopReason as a mapping."""


@dataclass(frozen=True)
class StopReason:
    """What has ended the study.

    Attributes:
        rule: the rule's key in the YAML, or "n_trials".
        reason: a clause for people.
        at: when, in seconds since the epoch; None for `n_trials`, where no agent notes it.
        limit: the rule's limit at that moment.
    """

    rule: str
    reason: str
    at: float | None = field(default_factory=time.time)
    limit: Any = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


def make_rules(study: optuna.Study, config: Config) -> list[Rule]:
    """The stopping rules that the configuration sets, in the order in which they are asked."""
    options = config.optuna
    return [
        rule.from_config(options, study) for key, rule in STOPPING_RULES.items() if getattr(options, key) is not None
    ]


def make_stopping_criteria(study: optuna.Study, config: Config) -> StoppingCriteria | None:
    """The stopping rules of the configuration at work; None where it has none besides `n_trials`."""
    rules = make_rules(study, config)
    return StoppingCriteria(study, rules) if rules else None


def find_stop_reason(study: optuna.Study, config: Config, counts: Counts) -> StopReason | None:
    """What has ended the study: all of its trials are finished, or a rule has left its note. None where it goes on."""
    budget = config.optuna.n_trials
    if counts.finished >= budget:
        return StopReason("n_trials", f"{counts.finished} of {budget} trials are finished", None, budget)
    return read_note(study, make_rules(study, config))


def ended_already(study: optuna.Study, config: Config) -> StopReason | None:
    """What ends a study before it is started (again): as `find_stop_reason`, or a rule that holds now."""
    backend = backend_of(study._storage)
    with locked(config.paths.lock):
        overview = backend.overview(study._study_id)
        known = find_stop_reason(study, config, count_overview(overview, count_imported(study)))
        criteria = make_stopping_criteria(study, config)
        if known is not None or criteria is None:
            return known
        # A trial that is RUNNING may belong to an agent that died long ago: when it stopped is known only after its
        # trials have been released.
        waiting = [trial for trial in overview.open if trial.state == TrialState.WAITING]
        return criteria.ended(replace(overview, open=waiting))


def read_note(study: optuna.Study, rules: Sequence[Rule]) -> StopReason | None:
    """The note in the study, where it is from one of the rules, with the limit that the rule has now."""
    attributes = study._storage.get_study_user_attrs(study._study_id)
    for rule in rules:
        rule.update(attributes.get(STUDY_ATTR, {}))
    note = attributes.get(NOTE)
    if not isinstance(note, Mapping):
        return None
    limits = {rule.key: rule.limit for rule in rules}
    key, limit = str(note.get("rule")), note.get("limit")
    return StopReason(key, str(note.get("reason")), note.get("at"), limit) if limits.get(key) == limit else None


class StoppingCriteria:
    """Asks the rules on behalf of one agent. The caller holds the ledger's lock.

    The study's trials are read only when the number of ended ones has changed. Each is given to the rules once.
    """

    def __init__(self, study: optuna.Study, rules: Sequence[Rule]) -> None:
        self._study, self._rules = study, rules
        self._reason: StopReason | None = None
        self._added = 0  # trials that have ended and were given to the rules
        self._read = 0  # trials that were read at all
        self._unended: set[int] = set()  # those of them that had not ended then

    def ended(self, overview: Overview) -> StopReason | None:
        """What has ended the study: what another agent has noted, or a rule that holds now, which is noted."""
        if self._reason is None:
            self._reason = read_note(self._study, self._rules) or self._ask(overview)
        return self._reason

    def _ask(self, overview: Overview) -> StopReason | None:
        if overview.complete + overview.pruned + overview.failed != self._added:
            self._add(self._study.get_trials(deepcopy=False))
        moment = Moment(overview.open)
        for rule in self._rules:
            said = rule(moment)
            if said is not None:
                reason = StopReason(rule.key, said, moment.now, rule.limit)
                self._study.set_user_attr(NOTE, asdict(reason))
                return reason
        return None

    def _add(self, trials: Sequence[FrozenTrial]) -> None:
        """Give the rules all trials that have ended since the last time, in the order in which they ended."""
        unknown = [trials[number] for number in sorted(self._unended)] + list(trials[self._read :])
        ended = [trial for trial in unknown if trial.state.is_finished()]
        self._read = len(trials)
        self._unended = {trial.number for trial in unknown if not trial.state.is_finished()}
        self._added += len(ended)

        def end(trial: FrozenTrial) -> tuple[float, int]:
            return trial.datetime_complete.timestamp() if trial.datetime_complete else 0.0, trial.number

        for trial in sorted(filter(is_own, ended), key=end):
            for rule in self._rules:
                rule.add(trial)


class ThrottledCheck:
    """Asks at most once in `period` seconds whether a rule has ended the study, for agents that are not claiming."""

    def __init__(self, ask: Callable[[], StopReason | None], period: float = 3.0) -> None:
        self._ask, self._period = ask, period
        self._due = 0.0
        self._ended = False

    def ended(self) -> bool:
        if not self._ended and time.monotonic() >= self._due:
            self._ended = self._ask() is not None
            self._due = time.monotonic() + self._period
        return self._ended
