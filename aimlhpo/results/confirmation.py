"""What a confirmation has found: mean and spread of each configuration, the probability that it is the best, and which
one has won. Read from the storage; `aimlhpo.search.queues` says what a confirmation is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import show_number
from aimlhpo.search.queues import ConfirmationQueue, count_trainings, find_confirmation, plan_of
from aimlhpo.space.constraints import holds

_DRAWS = 100_000  # of the means, which makes the probabilities exact to about 0.002
_SEED = 0  # the same probabilities from the same values


@dataclass(frozen=True)
class ConfirmedTrial:
    """One configuration of the study, and its trainings with fresh seeds.

    Attributes:
        number: the trial of the study that was confirmed.
        searched: the value that the search found with it.
        values: those of its complete trainings, in the order of their seeds.
        seeds: how many trainings were asked for.
        missed: trainings that have failed or were pruned.
        open: trainings that run or wait.
        feasible: whether all its complete trainings keep the constraints.
        mean: of the values; None without any.
        spread: their standard deviation; None of fewer than two, where it is not known.
        probability: that its true mean is the best of all, as `probabilities` has it; None where that is not known.
    """

    number: int
    searched: float
    values: tuple[float, ...]
    seeds: int
    missed: int = 0
    open: int = 0
    feasible: bool = True
    mean: float | None = None
    spread: float | None = None
    probability: float | None = None

    @classmethod
    def of(cls, entry: dict[str, Any], searched: FrozenTrial, by_key: dict[str, list[FrozenTrial]]) -> ConfirmedTrial:
        """What is known of a configuration of the plan; `by_key` are the confirmation's trials by training."""
        number, seeds = entry["trial"], entry["seeds"]
        trainings = [by_key.get(f"{number}/{repeat}", []) for repeat in range(seeds)]
        complete = [trial for tried in trainings for trial in tried if trial.state == TrialState.COMPLETE]
        lost = {TrialState.FAIL, TrialState.PRUNED}  # a training that has ended so, and waits for no other try
        missed = sum(bool(tried) and {trial.state for trial in tried} <= lost for tried in trainings)
        return cls(
            number=number,
            searched=float(searched.value if searched.value is not None else math.nan),
            values=tuple(float(trial.values[0]) for trial in complete),
            seeds=seeds,
            missed=missed,
            open=seeds - len(complete) - missed,
            feasible=all(holds(trial.constraints) for trial in complete),
        )

    def __str__(self) -> str:
        """In one line; there is a mean."""
        count = len(self.values)
        text = f"mean {show_number(self.mean or 0.0)}"
        if self.spread is None:
            return f"{text}, 1 seed, spread unknown"
        text += f", spread {show_number(self.spread)}, {count} seeds"
        return text if self.probability is None else f"{text}, best with probability {self.probability:.2f}"


@dataclass(frozen=True)
class Confirmation:
    """A study's confirmation as it is now.

    Attributes:
        study: its name in the storage.
        trials: its configurations, the best mean first; those that cannot win stand last.
        trainings: how many were asked for.
        winner: the trial of the confirmed study that best.yml follows; None before one is proven.
        same: whether each configuration of several values has the same value every time, although the seeds differ.
    """

    study: str
    trials: tuple[ConfirmedTrial, ...]
    trainings: int
    winner: int | None = None
    same: bool = False

    @property
    def complete(self) -> int:
        """Trainings that are complete."""
        return sum(len(trial.values) for trial in self.trials)

    @property
    def missed(self) -> int:
        """Trainings that have failed or were pruned."""
        return sum(trial.missed for trial in self.trials)

    @property
    def open(self) -> int:
        """Trainings that are still to end."""
        return self.trainings - self.complete - self.missed

    def of(self, number: int) -> ConfirmedTrial | None:
        """What is known of a trial of the confirmed study."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def __str__(self) -> str:
        """How far it is, in one line."""
        text = f"{self.complete} of {self.trainings} trainings complete"
        return f"{text}, {self.missed} failed or pruned" if self.missed else text


def read_confirmation(study: optuna.Study) -> Confirmation | None:
    """The confirmation of a study with one metric; None where it has none."""
    if len(study.directions) > 1:
        return None
    confirmation = find_confirmation(study)
    plan = plan_of(confirmation) if confirmation is not None else None
    if confirmation is None or plan is None:
        return None
    by_key: dict[str, list[FrozenTrial]] = {}
    for trial in confirmation.get_trials(deepcopy=False):
        key = ConfirmationQueue.key_of(trial)
        if key is not None:
            by_key.setdefault(key, []).append(trial)
    searched = study.get_trials(deepcopy=False)
    read = [ConfirmedTrial.of(entry, searched[entry["trial"]], by_key) for entry in plan["configurations"]]
    return judge(confirmation.study_name, read, plan["first"], study.direction, count_trainings(plan))


CELLS = ("trial", "search", "mean", "spread", "seeds", "P(best)")


def confirmation_cells(confirmation: Confirmation) -> Iterator[tuple[str, ...]]:
    """A row of texts under `CELLS` for each configuration, the best first."""
    for trial in confirmation.trials:
        numbers = [
            None if value is None else show_number(value) for value in (trial.searched, trial.mean, trial.spread)
        ]
        chance = None if trial.probability is None else f"{trial.probability:.2f}"
        texts = (str(trial.number), *numbers, f"{len(trial.values)} of {trial.seeds}", chance)
        yield tuple("-" if text is None else text for text in texts)


def confirmation_notes(confirmation: Confirmation) -> Iterator[str]:
    """What is to be known about the rows, in whole sentences."""
    infeasible = [str(trial.number) for trial in confirmation.trials if not trial.feasible]
    missed = [str(trial.number) for trial in confirmation.trials if trial.missed]
    if infeasible:
        yield f"Cannot win, because a training breaks a constraint: {', '.join(infeasible)}."
    if missed:
        yield f"Cannot win, because a training has failed or was pruned: {', '.join(missed)}."
    if confirmation.complete and all(len(trial.values) < 2 for trial in confirmation.trials):
        yield "With one training of each configuration its spread is unknown, and so are the probabilities."
    if confirmation.same:
        yield "Every training of a configuration gave the same value: train() may use no seed, or always the same."
    if confirmation.winner is None and not confirmation.open:
        yield "No configuration is proven: none has all its trainings complete and keeps the constraints."


def judge(
    name: str,
    trials: Sequence[ConfirmedTrial],
    first: dict[str, Any],
    direction: StudyDirection,
    trainings: int,
) -> Confirmation:
    """The confirmation with means, spreads and probabilities, and its winner.

    A configuration can win when it is feasible, none of its trainings has failed or was pruned, and it has as many
    complete ones as were asked for at `first`. None has won before all that was asked for at first has ended; what is
    asked for later only makes it more certain. The best mean wins; of equal ones, the one that the search ranked first.
    """
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    compared = [trial for trial in trials if trial.values and trial.feasible and not trial.missed]
    found = probabilities([trial.values for trial in compared], direction)
    chances = dict(zip((trial.number for trial in compared), found or (), strict=False))
    told = []
    for trial in trials:
        mean = fmean(trial.values) if trial.values else None
        spread = stdev(trial.values) if len(trial.values) > 1 else None
        chance = chances.get(trial.number, 0.0 if found and not trial.feasible else None)
        told.append(replace(trial, mean=mean, spread=spread, probability=chance))

    def rank(trial: ConfirmedTrial) -> tuple[bool, float]:
        can_win = trial.feasible and not trial.missed and trial.mean is not None
        return not can_win, math.inf if trial.mean is None else sign * trial.mean

    ranked = sorted(told, key=rank)
    by_number = {trial.number: trial for trial in told}
    ended = all(_has_ended(by_number[number], first["seeds"]) for number in first["trials"])
    able = (t for t in ranked if t.feasible and not t.missed and len(t.values) >= first["seeds"])
    winner = next((trial.number for trial in able), None) if ended else None
    repeated = [trial for trial in told if len(trial.values) > 1]
    same = bool(repeated) and all(len(set(trial.values)) == 1 for trial in repeated)
    return Confirmation(name, tuple(ranked), trainings, winner, same)


def _has_ended(trial: ConfirmedTrial, seeds: int) -> bool:
    return len(trial.values) + trial.missed >= seeds


def probabilities(values: Sequence[Sequence[float]], direction: StudyDirection) -> list[float] | None:
    """How probable it is that each configuration has the best mean of all; None where no spread is known.

    The values of all configurations are taken for independent and normal, with a mean of their own and one common
    variance, of which nothing is known beforehand. Then the variance, given the values, is their pooled variance times
    n / chi-squared(n) with n degrees of freedom, and each mean is normal around the mean of its values, so that it has
    Student's t distribution (Gelman et al., Bayesian Data Analysis, third edition, section 3.2). Means are drawn from
    that, always the same ones, and it is counted how often each is the best.
    """
    sizes = np.array([len(each) for each in values])
    freedom = int(sum(sizes) - len(sizes))
    if freedom < 1:
        return None
    means = np.array([fmean(each) for each in values])
    losses = -means if direction == StudyDirection.MAXIMIZE else means
    squares = sum(float(np.sum((np.asarray(each) - mean) ** 2)) for each, mean in zip(values, means, strict=True))
    if squares == 0.0:  # what is trained again gives the same
        best = losses == losses.min()
        return [float(share) for share in best / best.sum()]
    random = np.random.default_rng(_SEED)
    deviations = np.sqrt(squares / random.chisquare(freedom, _DRAWS))
    drawn = losses + random.standard_normal((_DRAWS, len(sizes))) * deviations[:, None] / np.sqrt(sizes)
    wins = np.bincount(drawn.argmin(axis=1), minlength=len(sizes))
    return [float(share) for share in wins / _DRAWS]
