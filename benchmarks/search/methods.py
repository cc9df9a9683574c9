"""What the benchmark compares: aimlhpo's default, as it is chosen for a real configuration, and what Optuna has."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from aimlhpo.check.settings import load_config
from aimlhpo.config.schema import Config
from aimlhpo.search.bounded import bounded
from aimlhpo.search.building import make_pruner, make_sampler, strategies
from aimlhpo.search.rungs import ASHA
from benchmarks.search.optuna_searcher import Make, optuna_method
from benchmarks.search.task import Task

DEFAULT, OPTUNA = "aimlhpo default", "optuna default"
OPTUNAS_OTHERS = ("optuna GP", "optuna CMA-ES")
"""Run with `--peers`: Optuna's other samplers, with its median pruner."""


@cache
def config_of(task: Task, trials: int) -> Config:
    """A configuration that searches the task, with nothing said about how."""
    with tempfile.TemporaryDirectory() as folder:
        objective, hyperparameters, model = (Path(folder, name) for name in ("objective.py", "h.yml", "m.yml"))
        objective.touch()
        model.write_text("{}")
        optuna: dict[str, Any] = {"study_name": "search", "objective": str(objective), "n_trials": trials}
        optuna["save_path"] = folder
        optuna["parameters"] = {entry["name"]: _parameter(entry) for entry in task.space}
        hyperparameters.write_text(yaml.safe_dump({"optuna": optuna}, sort_keys=False))
        return load_config(hyperparameters, model)


def _parameter(entry: Any) -> dict[str, Any]:
    if entry["type"] == "categorical":
        settings = {"choices": entry["choices"]}
    else:
        settings = {"low": entry["low"], "high": entry["high"], "log": bool(entry.get("log"))}
    dependencies = [
        {"type": "optimize_iff", "on": name, "conditions": [{"type": "in", "compare_value": values}]}
        for name, values in entry.get("when", {}).items()
    ]
    return {"type": entry["type"], "settings": settings, **({"dependency": dependencies[0]} if dependencies else {})}


def _default(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    chosen = strategies(config_of(task, trials))
    return bounded(make_sampler(chosen.sampler, seed)), make_pruner(chosen.pruner)


def _one_in(factor: int) -> Make:
    """The default's sampler with one trial in `factor` going on at each rung."""
    return lambda seed, task, trials, workers: (_default(seed, task, trials, workers)[0], ASHA(reduction_factor=factor))


def _default_unpruned(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return _default(seed, task, trials, workers)[0], NopPruner()


def _tpe_unpruned(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return bounded(TPESampler(seed=seed)), NopPruner()


def _optuna(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return TPESampler(seed=seed), MedianPruner()


def _random(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return RandomSampler(seed=seed), NopPruner()


def _gaussian_process(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return GPSampler(seed=seed), MedianPruner()


def _cma_es(seed: int, task: Task, trials: int, workers: int) -> tuple[BaseSampler, BasePruner]:
    return CmaEsSampler(seed=seed, warn_independent_sampling=False), MedianPruner()


METHODS = {
    method.name: method
    for method in (
        optuna_method(DEFAULT, _default),
        optuna_method(OPTUNA, _optuna, as_aimlhpo=False),
        optuna_method("on_oom: fail", _default, learns=False),
        optuna_method("default, one in two", _one_in(2)),
        optuna_method("default, one in three", _one_in(3)),
        optuna_method("default, no pruning", _default_unpruned),
        optuna_method("TPE, no pruning", _tpe_unpruned),
        optuna_method("random, no pruning", _random),
        optuna_method(OPTUNAS_OTHERS[0], _gaussian_process, as_aimlhpo=False),
        optuna_method(OPTUNAS_OTHERS[1], _cma_es, as_aimlhpo=False),
    )
}
"""Those that run in this environment, by name; the first two are always run."""
