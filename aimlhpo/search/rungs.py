"""Rungs, at which trials are compared before their end: by pruners that end or pause trials there, and by samplers.

`Ladder` has the arithmetic of the rungs; `LearnedLadder` finds them where nobody has named the length of a training.
Rungs are not stored: they are read from the trials' reports, so that every agent sees the same after any crash.
`RungTable` holds what the trials have reached there.

`ASHA` (asynchronous successive halving, and Hyperband made of several of its brackets) is the pruner of both modes.
`Promotion` decides which paused trial goes on in mode promotion; the ledger asks it at each claim, in the storage
thread.
"""

from __future__ import annotations

import binascii
import math
import sys
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.config.fields import AUTO
from aimlhpo.errors import ConfigError, Problem, did_you_mean, listing, show
from aimlhpo.objective.messages import Pause
from aimlhpo.search.bounded import is_infeasible
from aimlhpo.storage.base import PAUSED, OpenTrial

Array = np.ndarray[Any, Any]

MODES = ("stopping", "promotion")


@dataclass(frozen=True)
class Ladder:
    """The rungs of one bracket, or of all of Hyperband's; resources are steps done, such as epochs.

    `first_step` is the number of a training's first report: 0, or 1 where the training counts from one.
    """

    min_resource: int
    max_resource: int
    reduction_factor: int
    brackets: int = 1
    first_step: int = 0

    @property
    def resources(self) -> list[int]:
        """The resource of each rung of the lowest bracket; the end of the training is no rung."""
        rungs, resource = [], self.min_resource
        while resource < self.max_resource:
            rungs.append(resource)
            resource *= self.reduction_factor
        return rungs

    @property
    def most_brackets(self) -> int:
        """The largest number of brackets that makes sense: the last one has no rung at all."""
        return len(self.resources) + 1

    def rungs(self, bracket: int) -> list[int]:
        """The resources of a bracket's rungs: each bracket leaves out one more of the first."""
        return self.resources[bracket:]

    def bracket(self, study_name: str, number: int) -> int:
        """A trial's bracket, drawn from its number by Hyperband's weights (Li et al. 2018), as in Optuna."""
        if self.brackets == 1:
            return 0
        after = reversed(range(self.brackets))
        weights = [math.ceil(self.brackets * math.pow(self.reduction_factor, n) / (n + 1)) for n in after]
        drawn = binascii.crc32(f"{study_name}_{number}".encode()) % sum(weights)
        return next(bracket for bracket in range(self.brackets) if drawn < sum(weights[: bracket + 1]))

    def step(self, resource: int) -> int:
        """The step of the report that reaches a rung."""
        return resource - 1 + self.first_step

    def value_at(self, resource: int, reports: Mapping[int, float]) -> float | None:
        """What a trial reported when it reached a rung; None if it has not."""
        step = self.step(resource)
        if step in reports:
            return reports[step]
        later = [at for at in reports if at > step]
        return reports[min(later)] if later else None

    def values_at(self, resource: int, study_name: str, trials: Iterable[FrozenTrial]) -> dict[int, dict[int, float]]:
        """By bracket: what its trials reported when they reached a rung, by trial number."""
        brackets: dict[int, dict[int, float]] = {}
        for trial in trials:
            value = self.value_at(resource, trial.intermediate_values)
            if value is not None:
                brackets.setdefault(self.bracket(study_name, trial.number), {})[trial.number] = value
        return brackets


def ranked(values: Mapping[int, float], *, maximize: bool) -> list[int]:
    """Trial numbers, best value first; of equal values the older trial first; NaN last."""
    sign = -1 if maximize else 1
    return sorted(values, key=lambda number: (math.isnan(values[number]), sign * values[number], number))


WHOLE = 6
"""Trials, the first ones of a study, that are trained to the end, where the rungs are learned."""

_MOST_RUNGS = 4
_FEWEST_WHOLE = 3
_LEAST_CORRELATION = 0.2


class LearnedLadder:
    """Finds the rungs of a study from its own trials.

    The longest COMPLETE trial tells how many steps a whole training has. The first WHOLE trials are not pruned; once
    three of them are complete, a rung counts only if their order there resembles that of their final values (Kendall's
    rank correlation), and only if this is so at all higher rungs, too: where learning curves cross, and where reports
    say nothing about the end, trials are trained to the end. Until one trial is complete, rungs are at 1, 3, 9, ...
    steps.
    """

    def __init__(self, reduction_factor: int) -> None:
        self._factor = reduction_factor
        self._study: str | None = None

    def of(self, study: str, trials: Sequence[FrozenTrial], *, running: bool = True) -> Ladder:
        """The rungs, as far as a study's trials tell; `running`: whether those that run may tell, too."""
        if study != self._study:
            self._study, self._complete = study, set[int]()  # their numbers
            self._first, self._last, self._early = sys.maxsize, 0, list[FrozenTrial]()
        ended = TrialState.COMPLETE  # looked up once, as there may be ten thousand trials
        complete = (trial for trial in trials if trial.state is ended and trial.number not in self._complete)
        new = [trial for trial in complete if trial.intermediate_values]
        for trial in new:
            self._complete.add(trial.number)
            self._first = min(self._first, *trial.intermediate_values)
            self._last = max(self._last, *trial.intermediate_values)
            if trial.number < WHOLE:
                self._early.append(trial)
        if new:
            self._ladder = self._learn()
        if self._complete:
            return self._ladder
        heard = (trial.intermediate_values for trial in trials if running or trial.state != TrialState.RUNNING)
        first = min((min(reports) for reports in heard if reports), default=0)
        return Ladder(1, sys.maxsize, self._factor, first_step=first)

    def are_judged(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether it is known if reports say something about the end, or will not be known from the first trials."""
        first = [trial.state for trial in trials[:WHOLE]]
        ended = len(first) == WHOLE and all(state.is_finished() for state in first)
        return ended or first.count(TrialState.COMPLETE) >= _FEWEST_WHOLE

    def _learn(self) -> Ladder:
        """The rungs that those trials tell which are complete."""
        longest = self._last - self._first + 1
        lowest = max(1, math.ceil(longest / self._factor**_MOST_RUNGS))
        ladder = Ladder(lowest, longest, self._factor, first_step=self._first)
        if len(self._early) < _FEWEST_WHOLE:
            return ladder
        lowest = longest
        for rung in reversed(ladder.resources):
            early = ((ladder.value_at(rung, trial.intermediate_values), trial.values[0]) for trial in self._early)
            if correlation([(value, end) for value, end in early if value is not None]) < _LEAST_CORRELATION:
                break
            lowest = rung
        return replace(ladder, min_resource=lowest)


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's rank correlation (tau-a): 1 for the same order, -1 for the opposite one; 0 without two pairs."""
    signs = [np.sign((a[0] - b[0]) * (a[1] - b[1])) for a, b in combinations(pairs, 2)]
    return float(np.nan_to_num(signs).mean()) if signs else 0.0


class RungTable:
    """What the trials of a study have reached at its rungs and at their end; an ended trial is read once.

    Attributes:
        rows: one for each trial, by its number. `values`: what it had at each rung, from the lowest on, and at its end,
            if it is COMPLETE; NaN where it has not got so far. `reached`: whether it has got so far. `failed`: whether
            it has failed. `space`: which set of parameters it has, as a number.
        has_reports: whether any trial that does not run has reported something.
        infeasible: the numbers of the trials that have failed for what their configuration needs.
    """

    rows: Array
    has_reports: bool
    infeasible: list[int]

    def __init__(self) -> None:
        self._of: tuple[str, Ladder] | None = None

    def read(self, study: str, ladder: Ladder, trials: Sequence[FrozenTrial], *, running: bool = True) -> None:
        """Take in what is new in a study; `running`: whether the reports of trials that run count."""
        if self._of != (study, ladder):
            self._rungs = ladder.resources
            width = len(self._rungs) + 1
            columns = [("values", float, width), ("reached", bool, width), ("failed", bool), ("space", int)]
            self._of, self._all, self._spaces = (study, ladder), np.zeros(0, columns), dict[frozenset[str], int]()
            self._read, self._open, self._ended_reported, self.infeasible = 0, list[int](), False, []
        if len(trials) > len(self._all):
            self._all = np.concatenate([self._all, np.zeros(len(trials), self._all.dtype)])
        self.rows, self.has_reports = self._all[: len(trials)], self._ended_reported
        unread, self._open, self._read = [*self._open, *range(self._read, len(trials))], [], len(trials)
        for number in unread:
            trial = trials[number]
            is_running, failed = trial.state == TrialState.RUNNING, trial.state == TrialState.FAIL
            reports = trial.intermediate_values if running or not is_running else {}
            values = [ladder.value_at(rung, reports) for rung in self._rungs]
            values.append(trial.values[0] if trial.state == TrialState.COMPLETE else None)
            space = self._spaces.setdefault(frozenset(trial.params), len(self._spaces))
            reached = [value is not None for value in values]
            self.rows[number] = [math.nan if value is None else value for value in values], reached, failed, space
            self.has_reports |= bool(trial.intermediate_values) and not is_running
            # One that is paused at a rung is shown to samplers as PRUNED, and may go on.
            if not trial.state.is_finished() or (trial.state == TrialState.PRUNED and PAUSED in trial.system_attrs):
                self._open.append(number)
                continue
            self._ended_reported |= bool(trial.intermediate_values)
            if is_infeasible(trial):
                insort(self.infeasible, number)

    def has(self, names: Iterable[str]) -> Array:
        """Which trials have all of these parameters."""
        needed = frozenset(names)
        return np.isin(self.rows["space"], [space for known, space in self._spaces.items() if known >= needed])


class ASHA(BasePruner):
    """Asynchronous successive halving; with several brackets, asynchronous Hyperband.

    Trials are compared when they have trained for `min_resource` epochs (or whatever their steps are), for
    `reduction_factor` times as many, and so on up to `max_resource`; at each of these rungs the best
    1/`reduction_factor` go on. With mode "stopping", a trial that is not among them when it gets there is pruned.
    With mode "promotion", every trial pauses at a rung and goes on if it is, or comes to be, among them: the ledger
    decides that, and this pruner prunes nothing. Without `max_resource`, in mode "stopping" alone, the rungs are
    learned (`LearnedLadder`). Unlike Optuna's SuccessiveHalvingPruner, it counts resources from 1 where reports count
    from 0 (`first_step`).
    """

    def __init__(
        self,
        max_resource: int | str = AUTO,
        min_resource: int = 1,
        reduction_factor: int = 3,
        brackets: int = 1,
        mode: str = "stopping",
        first_step: int = 0,
    ) -> None:
        """Raises ConfigError, with all problems, for arguments that make no rungs."""
        learned = isinstance(max_resource, str)
        most = sys.maxsize if isinstance(max_resource, str) else max_resource
        self.ladder = Ladder(min_resource, most, reduction_factor, brackets, first_step)
        self.mode = mode
        problems = list(_problems(self.ladder, mode))
        if learned:
            given = {"min_resource": min_resource, "brackets": brackets, "mode": mode, "first_step": first_step}
            usual = {"min_resource": 1, "brackets": 1, "mode": MODES[0], "first_step": 0}
            needing = [f"{key} {show(value)}" for key, value in given.items() if value != usual[key]]
            legal = "the number of epochs, or whatever trials report by, of a whole training"
            if max_resource != AUTO:
                problems.append(Problem("max_resource", f"{show(max_resource)} is not a number", f"{legal}; or auto"))
            elif needing and not problems:
                problems.append(Problem("max_resource", f"is missing, and {listing(needing)} needs it", legal))
        if problems:
            raise ConfigError(problems)
        self._learned = LearnedLadder(reduction_factor) if learned else None
        self._table = RungTable()

    def ladder_of(self, study: str, trials: Sequence[FrozenTrial], *, running: bool = True) -> Ladder:
        """The rungs of the study of that name; `running`: whether those of its trials that run may tell them."""
        return self.ladder if self._learned is None else self._learned.of(study, trials, running=running)

    def are_judged(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the rungs of a study that has these trials can be relied on; see LearnedLadder."""
        return self._learned is None or self._learned.are_judged(trials)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is not among the best at the highest rung that its last report is the first to reach."""
        reports = trial.intermediate_values
        if self.mode == "promotion" or not reports or (self._learned is not None and trial.number < WHOLE):
            return False
        last = max(reports)
        before = max((step for step in reports if step != last), default=-1)
        trials = study.get_trials(deepcopy=False)
        ladder = self.ladder_of(study.study_name, trials)
        bracket = ladder.bracket(study.study_name, trial.number)
        reached = [rung for rung in ladder.rungs(bracket) if before < ladder.step(rung) <= last]
        if not reached:
            return False
        self._table.read(study.study_name, ladder, trials)
        column, rows = ladder.resources.index(reached[-1]), self._table.rows
        others = rows["reached"][:, column].copy()
        others[trial.number] = False
        if ladder.brackets > 1:
            numbers = np.flatnonzero(others)
            others[numbers] = [ladder.bracket(study.study_name, number) == bracket for number in numbers.tolist()]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        losses = sign * np.append(rows["values"][others, column], reports[last])
        losses[np.isnan(losses)] = math.inf
        older = np.flatnonzero(others) < trial.number  # of equal trials the older one is the better one
        better = (losses[:-1] < losses[-1]) | ((losses[:-1] == losses[-1]) & older)
        return int(np.count_nonzero(better)) >= max(1, len(losses) // ladder.reduction_factor)


def _problems(ladder: Ladder, mode: str) -> Iterator[Problem]:
    """What is wrong with ASHA's arguments; the key path of each problem is the argument's name."""
    if mode not in MODES:
        yield Problem("mode", f"{show(mode)} is no mode of ASHA", listing(MODES), did_you_mean(mode, MODES))
    if ladder.first_step not in (0, 1):
        yield Problem("first_step", f"{ladder.first_step} is not a first step", "0, or 1 where reports count from one")
    if ladder.reduction_factor < 2:
        yield Problem("reduction_factor", f"{ladder.reduction_factor} is too small", "a whole number, 2 or more")
    if ladder.min_resource < 1:
        yield Problem("min_resource", f"{ladder.min_resource} is too small", "a whole number, 1 or more")
    elif ladder.max_resource <= ladder.min_resource:
        found = f"{ladder.max_resource} is not more than min_resource, {ladder.min_resource}"
        yield Problem("max_resource", found, "the number of epochs, or whatever trials report by, of a whole training")
    elif ladder.reduction_factor >= 2 and not 1 <= ladder.brackets <= ladder.most_brackets:
        rungs = listing(str(rung) for rung in ladder.resources)
        legal = f"1 to {ladder.most_brackets}: there are rungs at {rungs}"
        yield Problem("brackets", f"{ladder.brackets} is not possible", legal)


class Promotion:
    """ASHA by promotion in one study: which paused trial goes on, and where a trial pauses next.

    It decides from what the storage holds at the moment. The caller of `next` holds the ledger's lock.
    """

    def __init__(self, study: optuna.Study, pruner: ASHA, metric: int) -> None:
        self._study, self._ladder = study, pruner.ladder
        self._maximize = study.directions[metric] == StudyDirection.MAXIMIZE

    @classmethod
    def of(cls, study: optuna.Study, metric: int | None) -> Promotion | None:
        """The promotion of a study whose pruner is ASHA with mode promotion; None for other studies.

        `metric` is the position of the metric that trials report, None where they report none.
        """
        pruner = study.pruner
        if not isinstance(pruner, ASHA) or pruner.mode != "promotion" or metric is None:
            return None
        return cls(study, pruner, metric)

    def next(self, paused: Sequence[OpenTrial]) -> OpenTrial | None:
        """The paused trial that goes on: the best of the highest rung that has one to promote; None if none has."""
        trials = self._study.get_trials(deepcopy=False) if paused else []
        for rung in sorted({trial.rung for trial in paused if trial.rung is not None}, reverse=True):
            here = {trial.number: trial for trial in paused if trial.rung == rung}
            for reported in self._ladder.values_at(rung, self._study.study_name, trials).values():
                values = {number: value for number, value in reported.items() if not math.isnan(value)}
                best = ranked(values, maximize=self._maximize)[: len(values) // self._ladder.reduction_factor]
                promoted = next((number for number in best if number in here), None)
                if promoted is not None:
                    return here[promoted]
        return None

    def pause(self, trial: FrozenTrial) -> Pause | None:
        """The next rung above the one that a trial last paused at; None where it goes on to the end."""
        below = (trial.system_attrs.get(PAUSED) or {}).get("rung", 0)
        rungs = self._ladder.rungs(self._ladder.bracket(self._study.study_name, trial.number))
        ahead = (rung for rung in rungs if rung > below)
        return next((Pause(rung, self._ladder.step(rung)) for rung in ahead), None)
