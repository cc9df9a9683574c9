"""What every sampler and pruner of Optuna has to keep, run by agents with workers as a study is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.check.check import check
from aimlhpo.cli.live_view import make_view
from aimlhpo.launch import local
from aimlhpo.search.building import classes
from aimlhpo.search.warm_start import begin_study
from tests.project import Project

BUDGET, WORKERS = 20, 4
OBJECTIVE = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            loss = conf["model"]["x"] ** 2 + 0.01 * conf["model"].get("units", 0)
            if self.metric != ["loss", "size"]:
                for step in range(4):
                    trial.report(loss + 1 / (1 + step), step)
            return {"loss": loss, "size": conf["model"].get("units", 0)}
"""
KIND = {"type": "categorical", "settings": {"choices": ["plain", "wide"]}}
X = {"type": "float", "settings": {"name": "x", "low": -1.0, "high": 1.0}}
X_IN_STEPS = {"type": "float", "settings": {"name": "x", "low": -1.0, "high": 1.0, "step": 0.25}}
UNITS = {"type": "int", "settings": {"name": "units", "low": 1, "high": 8}}
ONLY_WIDE = {"type": "optimize_iff", "on": "kind", "conditions": [{"type": "equal", "compare_value": "wide"}]}
CONDITIONAL = {"kind": KIND, "model:x": X, "model:units": {**UNITS, "dependency": ONLY_WIDE}}
FIXED = {"kind": KIND, "model:x": X, "model:units": UNITS}


@dataclass(frozen=True)
class Case:
    """A class with the arguments that make it leave its random start within the budget."""

    arguments: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=lambda: CONDITIONAL)
    two_metrics: bool = True


SAMPLERS = {
    "BruteForceSampler": Case(parameters={**CONDITIONAL, "model:x": X_IN_STEPS}),
    "CmaEsSampler": Case({"popsize": 4}, two_metrics=False),
    "GPSampler": Case({"n_startup_trials": 11}),
    "GridSampler": Case(
        {"search_space": {"kind": ["plain", "wide"], "x": [-1, -0.5, 0, 0.5], "units": [1, 4, 8]}}, FIXED
    ),
    "NSGAIIISampler": Case({"population_size": 4}),
    "NSGAIISampler": Case({"population_size": 4, "crossover": "SBXCrossover"}),
    "PartialFixedSampler": Case(
        {"fixed_params": {"kind": "wide"}, "base_sampler": {"type": "TPESampler", "n_startup_trials": 4}}
    ),
    "QMCSampler": Case({"scramble": True}),
    "RandomSampler": Case(),
    "RungGPSampler": Case({"n_startup_trials": 4}, two_metrics=False),
    "RungSampler": Case({"n_startup_trials": 4}, two_metrics=False),
    "RungTPESampler": Case({"n_startup_trials": 4}, two_metrics=False),
    "TPESampler": Case({"n_startup_trials": 4}),
}
GENETIC = ("NSGAIISampler", "NSGAIIISampler")  # a child may be like one of its parents
PRUNERS = {
    "ASHA": Case({"max_resource": 4}),
    "HyperbandPruner": Case({"min_resource": 1, "max_resource": 4}),
    "MedianPruner": Case({"n_startup_trials": 2}),
    "NopPruner": Case(),
    "PatientPruner": Case({"wrapped_pruner": {"type": "MedianPruner", "n_startup_trials": 2}, "patience": 1}),
    "PercentilePruner": Case({"percentile": 25, "n_startup_trials": 2}),
    "SuccessiveHalvingPruner": Case({"min_resource": 1, "reduction_factor": 2}),
    "ThresholdPruner": Case({"upper": 1.5}),
    "WilcoxonPruner": Case({"p_threshold": 0.3}),
}


def test_every_class_of_optuna_has_a_case() -> None:
    """A class that a later Optuna brings belongs into the list above."""
    assert set(classes("sampler")) == set(SAMPLERS)
    assert set(classes("pruner")) == set(PRUNERS)


class Run:
    """A study in a folder of its own."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        folder.mkdir(exist_ok=True)
        settings = {"storage": "journal", "seed": 7, "metric": "loss", "n_trials": BUDGET, "pruner": "NopPruner"}
        self.project = Project(folder, OBJECTIVE, **{**settings, **keys})

    def to_its_end(self, workers: int) -> Run:
        """Run the study; `params` are those of its trials then."""
        config = self.project.config
        assert check(config) == []
        begin_study(config)
        local.run_local(config, make_view(config), workers)
        self.params = [trial.params for trial in self.project.study().trials]
        return self


def sampler_keys(name: str, metrics: int = 1) -> dict[str, Any]:
    case = SAMPLERS[name]
    keys = {"sampler": {"type": name, **case.arguments}, "parameters": case.parameters}
    if metrics == 2:
        keys |= {"metric": ["loss", "size"], "direction": ["minimize", "minimize"]}
    return keys


def cases() -> list[tuple[str, int]]:
    return [
        (name, metrics) for name, case in SAMPLERS.items() for metrics in (1, 2) if case.two_metrics or metrics == 1
    ]


@pytest.mark.parametrize(("name", "metrics"), cases())
def test_a_sampler_keeps_the_budget(tmp_path: Path, name: str, metrics: int) -> None:
    keys = sampler_keys(name, metrics)
    if name == "GPSampler":
        keys["sampler"]["n_startup_trials"] = 18  # each later trial takes a second
    run = Run(tmp_path, **keys).to_its_end(WORKERS)
    assert run.project.states() == {"COMPLETE": BUDGET}
    for params in run.params:
        assert ("units" in params) == (params["kind"] == "wide" or name == "GridSampler")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_repeats_with_its_seed_and_goes_on_after_a_restart(tmp_path: Path, name: str) -> None:
    one = Run(tmp_path / "one", n_trials=12, **sampler_keys(name)).to_its_end(1)
    other = Run(tmp_path / "other", n_trials=12, **sampler_keys(name)).to_its_end(1)
    assert one.params == other.params

    longer = Run(tmp_path / "one", n_trials=14, reload=1, **sampler_keys(name)).to_its_end(1)
    assert longer.params[:12] == one.params
    assert longer.project.states() == {"COMPLETE": 14}
    again = [params for params in longer.params[12:] if params in one.params]
    assert not again or name in GENETIC
    assert longer.params[12:] != one.params[:2]


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_keeps_the_budget(tmp_path: Path, name: str) -> None:
    keys = {"pruner": {"type": name, **PRUNERS[name].arguments}, "pruning": "strict", "parameters": CONDITIONAL}
    run = Run(tmp_path, **keys, sampler="RandomSampler").to_its_end(WORKERS)
    assert sum(run.project.states().values()) == BUDGET
    assert set(run.project.states()) <= {"COMPLETE", "PRUNED"}

    longer = Run(tmp_path, **{**keys, "n_trials": BUDGET + 2}, reload=1, sampler="RandomSampler").to_its_end(1)
    assert len({str(params) for params in longer.params}) == BUDGET + 2
