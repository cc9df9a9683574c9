"""Samplers and pruners by name; a trial's seed decides its suggestions."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from aimlhpo.config.optuna_section import StrategySection
from aimlhpo.config.yaml import parse_yaml
from aimlhpo.errors import ConfigError
from aimlhpo.search.building import (
    ARGUMENT_DEFAULTS,
    OWN_CLASSES,
    check_strategy,
    classes,
    make_pruner,
    make_sampler,
    strategy_problems,
)
from aimlhpo.search.sampling import reseed


def section(type: str, **arguments: Any) -> StrategySection:
    return StrategySection.model_validate({"type": type, **arguments})


NEEDED: dict[str, dict[str, Any]] = {
    "ASHA": {"max_resource": 9},
    "GridSampler": {"search_space": {"x": [1, 2]}},
    "PartialFixedSampler": {"fixed_params": {"x": 1}, "base_sampler": {"type": "RandomSampler"}},
    "PatientPruner": {"wrapped_pruner": "MedianPruner", "patience": 2},
    "PercentilePruner": {"percentile": 25},
    "ThresholdPruner": {"upper": 1},
}


@pytest.mark.parametrize("name", sorted(classes("sampler")))
def test_every_sampler_of_optuna_is_made_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = make_sampler(section(name, **NEEDED.get(name, {})), seed=1)
    assert type(sampler).__name__ == name


@pytest.mark.parametrize("name", sorted(classes("pruner")))
def test_every_pruner_of_optuna_is_made_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner = make_pruner(section(name, **NEEDED.get(name, {})))
    assert type(pruner).__name__ == name


def test_what_is_chosen_takes_no_arguments() -> None:
    assert check_strategy("sampler", None) == check_strategy("sampler", section("auto")) == []
    (problem,) = check_strategy("sampler", section("auto", n_startup_trials=3))
    assert (problem.where, problem.found) == ("optuna: sampler: n_startup_trials", "auto takes no arguments")


def test_a_default_for_an_argument_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARGUMENT_DEFAULTS, "n_startup_trials", 3)
    for sampler, expected in ((section("TPESampler"), 3), (section("TPESampler", n_startup_trials=5), 5)):
        made: Any = make_sampler(sampler, 1)
        assert made._n_startup_trials == expected
    assert isinstance(make_sampler(section("RandomSampler"), 1), optuna.samplers.RandomSampler)


def test_a_pruner_of_aimlhpos_own_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(optuna.pruners.NopPruner):
        pass

    monkeypatch.setitem(OWN_CLASSES["pruner"], "Never", Never)
    assert isinstance(make_pruner(section("Never")), Never)


def test_nested_strategies() -> None:
    pruner: Any = make_pruner(
        section("PatientPruner", wrapped_pruner={"type": "PercentilePruner", "percentile": 30}, patience=3)
    )
    assert isinstance(pruner._wrapped_pruner, optuna.pruners.PercentilePruner)
    sampler: Any = make_sampler(
        section(
            "PartialFixedSampler",
            fixed_params={"x": 1},
            base_sampler={"type": "NSGAIISampler", "crossover": {"type": "SBXCrossover", "eta": 3.0}},
        ),
        1,
    )
    assert isinstance(sampler._base_sampler, optuna.samplers.NSGAIISampler)
    assert type(sampler._base_sampler._child_generation_strategy._crossover).__name__ == "SBXCrossover"


@pytest.mark.parametrize(
    ("kind", "entry", "where", "words"),
    [
        ("sampler", {"type": "TPE"}, "sampler: type", "did you mean: TPESampler"),
        ("sampler", {"type": "tpesampler"}, "sampler: type", "did you mean: TPESampler"),
        ("sampler", {"type": "MedianPruner"}, "sampler: type", "not a sampler of Optuna"),
        ("sampler", {"type": "BaseSampler"}, "sampler: type", "not a sampler of Optuna"),
        ("pruner", {"type": "MedianPrunner"}, "pruner: type", "did you mean: MedianPruner"),
        ("sampler", {"type": "TPESampler", "n_startup": 3}, "sampler: n_startup", "did you mean: n_startup_trials"),
        ("sampler", {"type": "TPESampler", "gamma": 3}, "sampler: gamma", "takes no such argument"),
        ("sampler", {"type": "TPESampler", "n_startup_trials": "ten"}, "sampler: n_startup_trials", "a whole number"),
        ("sampler", {"type": "TPESampler", "multivariate": 3}, "sampler: multivariate", "true or false"),
        ("sampler", {"type": "TPESampler", "n_startup_trials": True}, "sampler: n_startup_trials", "does not fit"),
        ("sampler", {"type": "GridSampler"}, "sampler: search_space", "is missing"),
        ("sampler", {"type": "GridSampler", "search_space": {"x": 3}}, "sampler: search_space: x", "is not a list"),
        ("pruner", {"type": "PercentilePruner", "percentile": 200}, "pruner", "percentile"),
        ("pruner", {"type": "PatientPruner", "patience": 3}, "pruner: wrapped_pruner", "is missing"),
        ("pruner", {"type": "PatientPruner", "wrapped_pruner": {"type": "Median"}, "patience": 3},
         "pruner: wrapped_pruner: type", "did you mean: MedianPruner"),
        ("pruner", {"type": "PatientPruner", "wrapped_pruner": 5, "patience": 3},
         "pruner: wrapped_pruner", "not a pruner"),
        ("pruner", {"type": "ThresholdPruner"}, "pruner", "ThresholdPruner"),
        ("sampler", {"type": "NSGAIISampler", "crossover": {"type": "SBXCrossover", "etta": 1}},
         "sampler: crossover: etta", "did you mean: eta"),
        ("sampler", {"type": "NSGAIISampler", "population_size": 1}, "sampler", "population_size"),
    ],
)  # fmt: skip
def test_mistakes(kind: str, entry: dict[str, Any], where: str, words: str) -> None:
    strategy = section(**entry)
    problems = check_strategy(kind, strategy)
    assert [problem.where for problem in problems] == [f"optuna: {where}"]
    assert words in str(problems[0])
    with pytest.raises(ConfigError):
        make_sampler(strategy, 1) if kind == "sampler" else make_pruner(strategy)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.search.building.find_spec", lambda name: None)
    (problem,) = check_strategy("sampler", section("CmaEsSampler"))
    assert "needs the package cmaes" in problem.found
    assert "pip install cmaes" in str(problem.legal)


@dataclass
class Drawn:
    """Suggestions of one trial after twelve finished ones."""

    sampler: StrategySection
    seed: int
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
        study.optimize(self.suggest, n_trials=12)
        study.sampler = make_sampler(self.sampler, seed=5)
        reseed(study.sampler, self.seed)
        trial = study.ask()
        self.suggest(trial)
        self.values = trial.params

    @staticmethod
    def suggest(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 0, 1000) + trial.suggest_float("y", 0, 1)


RESEEDED = [
    section("RandomSampler"),
    section("TPESampler"),
    section("TPESampler", multivariate=True, group=True),
    section("CmaEsSampler"),
    section("NSGAIISampler", population_size=4),
    section("NSGAIIISampler", population_size=4),
    section("PartialFixedSampler", fixed_params={"x": 0.5}, base_sampler={"type": "RandomSampler"}),
]


@pytest.mark.parametrize("sampler", RESEEDED, ids=lambda section: section.type)
def test_the_seed_decides_what_is_suggested(sampler: StrategySection) -> None:
    assert Drawn(sampler, 1).values == Drawn(sampler, 1).values
    assert Drawn(sampler, 1).values != Drawn(sampler, 2).values


def test_reseeding_does_not_move_a_quasi_random_sequence() -> None:
    """Trials share one sequence; where each stands in it comes from the study."""
    sampler = section("QMCSampler", scramble=True)
    assert Drawn(sampler, 1).values == Drawn(sampler, 2).values


def test_the_states_of_one_sampler_differ() -> None:
    sampler: Any = make_sampler(section("CmaEsSampler"), 1)
    reseed(sampler, 3)
    assert sampler._cma_rng.rng.random() != sampler._independent_sampler._rng.rng.random()


# --- The page of all samplers and pruners in the documentation ---

PAGE = Path(__file__).resolve().parents[2] / "docs/strategies.md"
ENTRIES: list[dict[str, Any]] = [
    parse_yaml(line, "docs/strategies.md") for line in re.findall(r"^\| `(\{type: .*?\})` \|", PAGE.read_text(), re.M)
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["type"])
def test_each_example_in_the_documentation_is_valid(entry: dict[str, Any]) -> None:
    kind = "sampler" if entry["type"].endswith("Sampler") else "pruner"
    assert strategy_problems(kind, entry, "here") == []


def test_the_documentation_has_every_class() -> None:
    assert {entry["type"] for entry in ENTRIES} == {*classes("sampler"), *classes("pruner")}
