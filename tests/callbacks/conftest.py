"""A trial of a real study that prunes whatever reports more than 10."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest


@pytest.fixture
def trial() -> optuna.Trial:
    return optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=10.0)).ask()


@pytest.fixture
def reported(trial: optuna.Trial) -> Callable[[], dict[int, float]]:
    """What the study knows: step -> value."""
    return lambda: trial.study.trials[trial.number].intermediate_values
