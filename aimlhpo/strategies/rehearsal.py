"""A few trials in memory with made-up values: what a sampler or pruner cannot do shows before anything runs."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import Trial

from aimlhpo.errors import Problem
from aimlhpo.strategies.errors import in_one_line
from aimlhpo.strategies.situation import Situation

TRIALS = 30
SECONDS = 0.5  # the rehearsal ends early where a sampler takes its time
_STEPS = 4


def rehearse(sampler: BaseSampler, pruner: BasePruner, study: Situation) -> list[Problem]:
    """What the sampler or the pruner raises; a sampler that takes seconds is not asked."""
    if isinstance(sampler, GPSampler) or not study.space.parameters:
        return []
    with _quiet():
        played = optuna.create_study(directions=study.directions, sampler=sampler, pruner=pruner)
        played._thread_local.in_optimize_loop = True  # samplers may say that they have tried everything
        return _play(played, study, random.Random(0))


def _play(played: optuna.Study, study: Situation, dice: random.Random) -> list[Problem]:
    deadline = time.monotonic() + SECONDS
    for _ in range(min(TRIALS, study.n_trials)):
        try:
            trial = played.ask()
            study.space.suggest(trial)
            for constraint in study.constraints:
                trial.set_constraint(constraint.text, dice.uniform(-1, 1))
        except Exception as error:  # noqa: BLE001  the sampler's own, whatever it is
            return [_problem("sampler", played.sampler, "suggest values", error)]
        try:
            _report(trial, study, dice)
        except Exception as error:  # noqa: BLE001  the pruner's own
            return [_problem("pruner", played.pruner, "decide", error)]
        played.tell(trial, [dice.random() for _ in study.metric])
        if time.monotonic() > deadline:
            break
    return []


def _report(trial: Trial, study: Situation, dice: random.Random) -> None:
    if len(study.metric) == 1:
        for step in range(_STEPS):
            trial.report(dice.random(), step)
            trial.should_prune()


def _problem(kind: str, strategy: Any, act: str, error: Exception) -> Problem:
    found = f"{type(strategy).__name__} cannot {act} in this study: {in_one_line(error)}"
    return Problem(f"optuna: {kind}", found, f"other arguments, or another {kind}")


@contextmanager
def _quiet() -> Iterator[None]:
    """What a rehearsal would warn of is not what the study does."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
