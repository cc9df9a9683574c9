"""The rules that end a study before its `n_trials` are finished, and whether one of them has.

Each rule is a class, and each key in the YAML that sets one is registered in STOPPING_RULES. To add a rule, write the
class, register it, and add the key to the `optuna` section in `config`.

An agent makes the rules once. Those that look at trials (`reads_trials`) are given each trial when it has ended
(`add`). So a rule costs a few operations for each trial that ends, and next to none for a claim, when it is asked. A
rule that can tell from the number of trials that it does not hold costs nothing at all (`may_hold`).

An agent that finds that a rule holds leaves a note in the study, so that all other agents and all later commands agree
with it. A note counts as long as the configuration has its rule with the same limit: once the rule is changed, the
study can be continued.

`StoppingCriteria` runs in an agent's storage thread, under the ledger's lock: it is asked at each claim.
`find_stop_reason` and `ended_already` are for the command line.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyFailed, show_duration, show_number
from aimlhpo.search.building import build_strategy
from aimlhpo.space.constraints import holds
from aimlhpo.storage.attributes import STUDY_ATTR, record_of, set_study_attribute, study_attributes
from aimlhpo.storage.base import BY_SECTION, SECTION, SUCCESSFUL, OpenTrial, Overview, backend_of, count_overview
from aimlhpo.storage.locks import locked
from aimlhpo.storage.trials import count_imported, is_own

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config
    from aimlhpo.storage.base import Counts

_HOUR = 3600.0


class Rule(ABC):
    """A reason to end the study.

    Attributes:
        key: the key of the `optuna` section that sets it; the rule is not made where the key has no value.
        reads_trials: whether it has to be given the trials that have ended.
        limit: what was set, as JSON. The note that a rule has ended the study counts as long as this is the same.
    """

    key: ClassVar[str]
    reads_trials: ClassVar[bool] = True
    limit: Any

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config, study: optuna.Study) -> Rule:
        """The rule that the configuration sets for a study."""

    def update(self, signature: Mapping[str, Any]) -> None:  # noqa: B027 -- most rules need nothing of it
        """Read again when the study was begun and last started: `signature` is the study's attribute STUDY_ATTR."""

    def may_hold(self, overview: Overview) -> bool:
        """Whether it may hold now, or may have held since it was last asked, as far as numbers of trials show."""
        return True

    def add(self, trial: FrozenTrial) -> None:  # noqa: B027 -- not all rules read trials
        """Count a trial that has ended. Each trial is given once, in the order in which they ended."""

    @abstractmethod
    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        """Why the study should end, or None.

        Args:
            unfinished: the trials that run or wait.
            now: the time, in seconds since the epoch.
        """


class Timeout(Rule):
    """Ends the study a number of seconds after its first start or, with `scope` "submission", after its last start."""

    key, reads_trials = "timeout", False

    def __init__(self, seconds: float, scope: str) -> None:
        self._seconds, self._of_study = seconds, scope == "study"
        self.update({})

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> Timeout:
        assert config.optuna.timeout is not None
        return cls(config.optuna.timeout, config.optuna.timeout_scope)

    def update(self, signature: Mapping[str, Any]) -> None:
        started = float(signature.get("started", 0.0))
        self._begin = float(signature.get("begun", started)) if self._of_study else started
        self.limit = [self._seconds, self._begin]

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        if now - self._begin <= self._seconds:
            return None
        since = "the study was begun" if self._of_study else "the study was last started"
        return f"more than {show_duration(self._seconds)} have passed since {since}"


class ConsecutiveFailures(Rule):
    """Gives the study up when so many trials in a row have failed since it was last started.

    They are in a row in the order in which they ended. `latest_ends` says when the last so many trials in some states
    ended, as a `Backend` does.
    """

    key, reads_trials = "max_consecutive_failures", False

    def __init__(self, most: int, latest_ends: Callable[[int, tuple[TrialState, ...]], Sequence[datetime]]) -> None:
        self._most, self._latest_ends = most, latest_ends
        self._failed = 0  # how many trials have failed
        self._before = 0  # those of them that came before the row, when it was last looked at
        self.update({})

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> ConsecutiveFailures:
        latest_ends = partial(backend_of(study._storage).latest_ends, study._study_id)
        return cls(config.optuna.max_consecutive_failures, latest_ends)

    def update(self, signature: Mapping[str, Any]) -> None:
        self._started = float(signature.get("started", 0.0))
        self.limit = [self._most, self._started]

    def may_hold(self, overview: Overview) -> bool:
        """A row has no more trials than have failed since it was last looked at, and those that it had then."""
        self._failed = overview.failed
        return self._failed - self._before >= self._most

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        successes = self._latest_ends(1, SUCCESSFUL)
        begin = max([datetime.fromtimestamp(self._started), *successes])
        failures = self._latest_ends(self._failed - self._before, (TrialState.FAIL,))
        row = sum(failure >= begin for failure in failures)
        self._before = self._failed - row
        return f"{row} trials in a row have failed" if row >= self._most else None


class TargetValue(Rule):
    """Ends the study when a COMPLETE trial satisfies the constraints and reaches the target of every metric with one.

    `targets` are by metric; `directions` are "minimize" or "maximize", one for each of the `metrics`.
    """

    key = "target_value"

    def __init__(self, targets: Mapping[str, float], metrics: Sequence[str], directions: Sequence[str]) -> None:
        self.limit = dict(targets)
        self._metrics, self._directions = metrics, directions
        self._reached: str | None = None

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> TargetValue:
        return cls(config.optuna.targets, config.optuna.metric, config.optuna.direction)

    def add(self, trial: FrozenTrial) -> None:
        if self._reached is not None or not is_feasible_result(trial):
            return
        reached = []
        for name, direction, value in zip(self._metrics, self._directions, trial.values, strict=True):
            if name not in self.limit:
                continue
            target, sign = self.limit[name], ">=" if direction == "maximize" else "<="
            if not (value >= target if direction == "maximize" else value <= target):
                return
            reached.append(f"{name} {show_number(value)} {sign} {show_number(target)}")
        self._reached = f"{', '.join(reached)} with trial {trial.number}"

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        return self._reached


class GpuHours(Rule):
    """Ends the study when all attempts of all trials have used so many hours, times their share of the GPUs.

    `weights` say what an hour counts, by section of `slurm`. The first one's holds where no section is known: on the
    machine of the user, and before there were several. An hour in a section that is there no more counts as one.
    """

    key = "max_gpu_hours"

    def __init__(self, hours: float, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._first = next(iter(self._weights.values()), 1.0)
        self._hours, self._weighted = hours, any(weight != 1.0 for weight in self._weights.values())
        self.limit = [hours, self._weights] if self._weighted else hours
        self._seconds = 0.0

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> GpuHours:
        assert config.optuna.max_gpu_hours is not None
        return cls(config.optuna.max_gpu_hours, {each.name or "": each.gpu_weight for each in config.sections})

    def add(self, trial: FrozenTrial) -> None:
        self._seconds += self._spent(record_of(trial))

    def _spent(self, known: Mapping[str, Any]) -> float:
        """The GPU seconds in a record or a history, by their weights."""
        seconds = self._first * float(known.get("gpu_seconds") or 0.0)
        for section, spent in known.get(BY_SECTION, {}).items():
            seconds += (self._weight(section) - self._first) * spent["gpu_seconds"]
        return seconds

    def _weight(self, section: str | None) -> float:
        return self._first if section is None else self._weights.get(section, 1.0)

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        seconds = self._seconds
        for trial in unfinished:
            seconds += self._spent(trial.released or {})  # earlier attempts
            claim = trial.claim if trial.state == TrialState.RUNNING else None
            if claim:
                gpus = claim.get("gpus", 0.0) * self._weight(claim.get(SECTION))
                seconds += max(0.0, now - (claim.get("since") or now)) * gpus
        used = seconds / _HOUR
        if used < self._hours:
            return None
        kind = "GPU hours, by gpu_weight," if self._weighted else "GPU hours"
        return f"{show_number(used)} of {show_number(self._hours)} {kind} are used"


class PatienceRule(Rule):
    """Ends the study when so many trials in a row have finished without one that is better than all before it.

    It counts from the first COMPLETE trial on. With several metrics, a trial is better when no earlier one is at least
    as good in all of them. With `min_delta`, better means better by that much.
    """

    key = "patience"

    def __init__(self, trials: int, min_delta: float, directions: Sequence[str]) -> None:
        self.limit = [trials, min_delta]
        self._most, self._delta = trials, min_delta
        self._signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
        self._front: list[list[float]] = []  # the best losses so far: one, or a Pareto front
        self._best = -1  # the number of the last trial that was better
        self._since = 0  # trials that have finished after it

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> PatienceRule:
        assert config.optuna.patience is not None
        return cls(config.optuna.patience.trials, config.optuna.patience.min_delta, config.optuna.direction)

    def add(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.FAIL:
            return
        self._since += 1
        if not is_feasible_result(trial):
            return
        losses = [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]
        if not any(_as_good(known, losses, self._delta) for known in self._front):
            self._front = [known for known in self._front if not _as_good(losses, known)] + [losses]
            self._best, self._since = trial.number, 0

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        if not self._front or self._since < self._most:
            return None
        return f"none of the {self._since} trials that finished after trial {self._best} is better"


def _as_good(one: Sequence[float], other: Sequence[float], delta: float = 0.0) -> bool:
    """Whether no loss of `one` is worse than that of `other`; with a delta, none is worse by so much or more."""
    gaps = (a - b for a, b in zip(one, other, strict=True))
    return all(gap < delta if delta else gap <= 0 for gap in gaps)


def is_feasible_result(trial: FrozenTrial) -> bool:
    """Whether the trial is COMPLETE and violates no constraint."""
    return trial.state == TrialState.COMPLETE and holds(trial.constraints)


class Terminator(Rule):
    """Ends the study when Optuna's terminator says so: it weighs what may still be gained against the noise.

    `should_terminate` may take seconds, so it is asked in a thread of its own, and its answer is read by a later call.
    """

    key = "terminator"

    def __init__(self, entry: Mapping[str, Any], direction: StudyDirection, seed: int | None) -> None:
        """`entry` is the terminator's class name and its keyword arguments, as `build_strategy` takes them."""
        self.limit = dict(entry)
        self._direction, self._seed = direction, seed
        self._trials: list[FrozenTrial] = []
        self._judged = 0  # trials that `should_terminate` was last asked about
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="terminator")
        self._terminator: Any = None
        self._verdict: Future[bool] | None = None

    @classmethod
    def from_config(cls, config: Config, study: optuna.Study) -> Terminator:
        assert config.optuna.terminator is not None
        seed = study_attributes(study).get(STUDY_ATTR, {}).get("seed")
        entry = {"type": config.optuna.terminator.type, **config.optuna.terminator.arguments}
        return cls(entry, study.direction, None if seed is None else int(seed))

    def add(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE:
            self._trials.append(trial)

    def __call__(self, unfinished: Sequence[OpenTrial], now: float) -> str | None:
        """Raises StudyFailed where the terminator cannot judge these trials at all."""
        name = self.limit["type"]
        if self._verdict is not None and self._verdict.done():
            try:
                ended = self._verdict.result()
            except Exception as error:
                raise StudyFailed(f"optuna: terminator: {name} cannot judge the trials: {error!r}") from error
            if ended:
                return f"{name} sees no more to gain after {self._judged} complete trials"
            self._verdict = None
        if self._verdict is None and len(self._trials) > self._judged:
            self._judged = len(self._trials)
            self._verdict = self._thread.submit(self._judge, _CompleteTrials(self._trials, self._direction))
        return None

    def _judge(self, trials: _CompleteTrials) -> bool:
        """Runs in the terminator's thread."""
        if self._terminator is None:
            self._terminator = build_strategy("terminator", self.limit, self._seed)
        return bool(self._terminator.should_terminate(trials))


class _CompleteTrials:
    """The part of a study that a terminator reads, as of the moment when this was made."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        self.trials, self.direction = list(trials), direction

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]


STOPPING_RULES: dict[str, type[Rule]] = {
    rule.key: rule for rule in (ConsecutiveFailures, Timeout, TargetValue, GpuHours, PatienceRule, Terminator)
}
"""All rules by their keys, in the order in which they are asked."""


# --- the rules at work ---


NOTE = "aimlhpo:ended"
"""Attribute of the study: a StopReason as a mapping."""


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

    @property
    def is_failure(self) -> bool:
        """Whether the study was given up, and not ended with a result."""
        return self.rule == ConsecutiveFailures.key

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


def make_rules(study: optuna.Study, config: Config) -> list[Rule]:
    """The stopping rules that the configuration sets, in the order in which they are asked."""
    given = {key: rule for key, rule in STOPPING_RULES.items() if getattr(config.optuna, key) is not None}
    return [rule.from_config(config, study) for rule in given.values()]


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
        if known is not None:
            return known
        # A trial that is RUNNING may belong to an agent that died long ago: when it stopped is known only after its
        # trials have been released.
        waiting = [trial for trial in overview.open if trial.state == TrialState.WAITING]
        return StoppingCriteria(study, make_rules(study, config)).ended(replace(overview, open=waiting))


def read_note(study: optuna.Study, rules: Sequence[Rule]) -> StopReason | None:
    """The note in the study, where it is from one of the rules, with the limit that the rule has now."""
    attributes = study_attributes(study)
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
        self.reads_trials = any(rule.reads_trials for rule in rules)

    def may_have_ended(self, overview: Overview) -> bool:
        """Whether it takes more than a look at the number of trials to say that no rule holds. Needs no lock."""
        return self._reason is not None or any(rule.may_hold(overview) for rule in self._rules)

    def ended(self, overview: Overview) -> StopReason | None:
        """What has ended the study: what another agent has noted, or a rule that holds now, which is noted.

        The overview is what the storage holds, with nothing in it that is not written yet.
        """
        if self._reason is None:
            asked = [rule for rule in self._rules if rule.may_hold(overview)]
            if asked:
                self._reason = read_note(self._study, self._rules) or self._ask(asked, overview)
        return self._reason

    def _ask(self, rules: Sequence[Rule], overview: Overview) -> StopReason | None:
        if self.reads_trials and overview.complete + overview.pruned + overview.failed != self._added:
            self._add(self._study.get_trials(deepcopy=False))
        now = time.time()
        for rule in rules:
            said = rule(overview.open, now)
            if said is not None:
                reason = StopReason(rule.key, said, now, rule.limit)
                set_study_attribute(self._study, NOTE, asdict(reason))
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
        """The last answer: a study that has ended goes on once its rule was changed."""
        if time.monotonic() >= self._due:
            self._ended = self._ask() is not None
            self._due = time.monotonic() + self._period
        return self._ended
