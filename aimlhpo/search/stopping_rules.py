"""The rules that end a study before its `n_trials` are finished.

Each rule is a class, and each key in the YAML that sets one is registered in STOPPING_RULES. To add a rule, write the
class, register it, and add the key to the `optuna` section in `config`.

An agent makes the rules once and gives them each trial when it has ended (`add`), in the storage thread. So a rule
costs a few operations for each trial that ends, and next to none for a claim, when it is asked.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyFailed, show_duration, show_number
from aimlhpo.search.building import build_strategy
from aimlhpo.storage.base import OpenTrial
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.trials import ATTRIBUTE

if TYPE_CHECKING:
    from aimlhpo.config.optuna_section import OptunaSection

_HOUR = 3600.0


@dataclass(frozen=True)
class Moment:
    """What a rule is asked about besides the trials that have ended.

    Attributes:
        open: the trials that run or wait.
        now: the time, in seconds since the epoch.
    """

    open: Sequence[OpenTrial] = ()
    now: float = field(default_factory=time.time)


class Rule(ABC):
    """A reason to end the study.

    Attributes:
        key: the key of the `optuna` section that sets it; the rule is not made where the key has no value.
        limit: what was set, as JSON. The note that a rule has ended the study counts as long as this is the same.
    """

    key: ClassVar[str]
    limit: Any

    @classmethod
    @abstractmethod
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> Rule:
        """The rule that the configuration's `optuna` section sets for a study."""

    def update(self, signature: Mapping[str, Any]) -> None:  # noqa: B027 -- most rules need nothing of it
        """Read again when the study was begun and last started: `signature` is the study's attribute STUDY_ATTR."""

    @abstractmethod
    def add(self, trial: FrozenTrial) -> None:
        """Count a trial that has ended. Each trial is given once, in the order in which they ended."""

    @abstractmethod
    def __call__(self, moment: Moment) -> str | None:
        """Why the study should end, or None."""


class Timeout(Rule):
    """Ends the study a number of seconds after its first start or, with `scope` "submission", after its last start."""

    key = "timeout"

    def __init__(self, seconds: float, scope: str) -> None:
        self._seconds, self._of_study = seconds, scope == "study"
        self.update({})

    @classmethod
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> Timeout:
        assert options.timeout is not None
        return cls(options.timeout, options.timeout_scope)

    def update(self, signature: Mapping[str, Any]) -> None:
        started = float(signature.get("started", 0.0))
        self._begin = float(signature.get("begun", started)) if self._of_study else started
        self.limit = [self._seconds, self._begin]

    def add(self, trial: FrozenTrial) -> None:
        """Nothing to count: time passes without trials, too."""

    def __call__(self, moment: Moment) -> str | None:
        if moment.now - self._begin <= self._seconds:
            return None
        since = "the study was begun" if self._of_study else "the study was last started"
        return f"more than {show_duration(self._seconds)} have passed since {since}"


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
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> TargetValue:
        return cls(options.targets, options.metric, options.direction)

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

    def __call__(self, moment: Moment) -> str | None:
        return self._reached


class GpuHours(Rule):
    """Ends the study when all attempts of all trials have used so many hours, times their share of the GPUs."""

    key = "max_gpu_hours"

    def __init__(self, hours: float) -> None:
        self.limit = hours
        self._seconds = 0.0

    @classmethod
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> GpuHours:
        assert options.max_gpu_hours is not None
        return cls(options.max_gpu_hours)

    def add(self, trial: FrozenTrial) -> None:
        record = trial.user_attrs.get(ATTRIBUTE)
        self._seconds += float(record.get("gpu_seconds") or 0.0) if isinstance(record, Mapping) else 0.0

    def __call__(self, moment: Moment) -> str | None:
        seconds = self._seconds
        for trial in moment.open:
            seconds += trial.gpu_seconds  # of earlier attempts
            claim = trial.claim if trial.state == TrialState.RUNNING else None
            if claim:
                seconds += max(0.0, moment.now - (claim.get("since") or moment.now)) * claim.get("gpus", 0.0)
        used = seconds / _HOUR
        if used < self.limit:
            return None
        return f"{show_number(used)} of {show_number(self.limit)} GPU hours are used"


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
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> PatienceRule:
        assert options.patience is not None
        return cls(options.patience.trials, options.patience.min_delta, options.direction)

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

    def __call__(self, moment: Moment) -> str | None:
        if not self._front or self._since < self._most:
            return None
        return f"none of the {self._since} trials that finished after trial {self._best} is better"


def _as_good(one: Sequence[float], other: Sequence[float], delta: float = 0.0) -> bool:
    """Whether no loss of `one` is worse than that of `other`; with a delta, none is worse by so much or more."""
    gaps = (a - b for a, b in zip(one, other, strict=True))
    return all(gap < delta if delta else gap <= 0 for gap in gaps)


def is_feasible_result(trial: FrozenTrial) -> bool:
    """Whether the trial is COMPLETE and violates no constraint."""
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())


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
    def from_config(cls, options: OptunaSection, study: optuna.Study) -> Terminator:
        assert options.terminator is not None
        seed = study.user_attrs.get(STUDY_ATTR, {}).get("seed")
        entry = {"type": options.terminator.type, **options.terminator.arguments}
        return cls(entry, study.direction, None if seed is None else int(seed))

    def add(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE:
            self._trials.append(trial)

    def __call__(self, moment: Moment) -> str | None:
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
    rule.key: rule for rule in (Timeout, TargetValue, GpuHours, PatienceRule, Terminator)
}
"""All rules by their keys, in the order in which they are asked."""
