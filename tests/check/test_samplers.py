"""Samplers, pruners and constraints that cannot work in a study: each is reported before anything runs."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from aimlhpo.check.samplers import suitability_problems, warnings_for
from aimlhpo.config.schema import Config
from tests.project import Project

X = {"type": "float", "settings": {"name": "x", "low": -1.0, "high": 1.0}}
STEPS = {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0, "step": 0.5}}
N = {"type": "int", "settings": {"name": "n", "low": 1, "high": 4}}
KIND = {"type": "categorical", "settings": {"name": "kind", "choices": ["a", "b"]}}
SIZE = {"type": "ordinal", "settings": {"name": "size", "choices": [8, 16, 32]}}
IF_B = {"type": "optimize_iff", "on": "kind", "conditions": [{"type": "equal", "compare_value": "b"}]}
TWO: dict[str, Any] = {"metric": ["a", "b"], "direction": ["minimize", "maximize"], "pruner": None}


def where_given(parameter: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**parameter, "dependency": {**IF_B, **more}}


@pytest.fixture
def study(tmp_path: Path) -> Any:
    def make(parameters: dict[str, Any], **keys: Any) -> Config:
        return Project(tmp_path, **{"parameters": parameters, "storage": "journal", **keys}).config

    return make


def sampler(type: str, **arguments: Any) -> dict[str, Any]:
    return {"sampler": {"type": type, **arguments}}


def grid(**search_space: Any) -> dict[str, Any]:
    return sampler("GridSampler", search_space=search_space)


ALL = {"model:x": X, "n": N, "kind": KIND}
PATIENT_HYPERBAND = {
    "type": "PatientPruner", "patience": 1, "wrapped_pruner": {"type": "HyperbandPruner", "min_resource": 0},
}  # fmt: skip
FIXED_CMA_ES = sampler("PartialFixedSampler", fixed_params={"kind": "a"}, base_sampler="CmaEsSampler")


@pytest.mark.parametrize(
    ("parameters", "keys", "where", "words"),
    [
        (ALL, {**TWO, **sampler("CmaEsSampler")}, "sampler: type", "CmaEsSampler cannot optimize 2 metrics"),
        (ALL, {**TWO, **FIXED_CMA_ES}, "sampler: base_sampler: type", "CmaEsSampler cannot optimize 2 metrics"),
        (ALL, {**TWO, **sampler("RungTPESampler")}, "sampler: type", "compares trials by one reported metric"),
        ({"kind": KIND}, sampler("CmaEsSampler"), "sampler: type", "every parameter is categorical"),
        (
            {"kind": KIND, "model:x": where_given(X)}, sampler("CmaEsSampler"),
            "sampler: type", "every range of numbers is conditional",
        ),
        (ALL, {**sampler("CmaEsSampler"), "constraints": "x <= 1"}, "sampler: type", "does not know constraints"),
        (ALL, sampler("CmaEsSampler", popsize=1), "sampler: popsize", "1 is no population"),
        (ALL, sampler("CmaEsSampler", x0={"x": 0.0}), "sampler: x0", "has no value for n"),
        (ALL, sampler("CmaEsSampler", x0={"x": 9.0, "n": 1}), "sampler: x0: x", "9.0 is not a value of x"),
        (
            {"kind": {"type": "constant", "settings": {"value": "b"}}, "model:x": where_given(X)},
            sampler("GPSampler"), "sampler: type", "every parameter is conditional",
        ),
        (ALL, sampler("BruteForceSampler"), "sampler: type", "tries every value, and x has no step"),
        (
            {"model:x": STEPS, "n": N}, {**sampler("BruteForceSampler"), "n_trials": 13},
            "n_trials", "13 is more than the 12 combinations",
        ),
        (
            {"kind": KIND, "model:x": STEPS, "n": where_given(N)}, {**sampler("BruteForceSampler"), "n_trials": 16},
            "n_trials", "more than the 15 combinations of the search space",
        ),
        (
            {"kind": KIND, "model:x": STEPS, "n": where_given(N, otherwise=2)},
            {**sampler("BruteForceSampler"), "n_trials": 16}, "n_trials", "more than the 15 combinations",
        ),
        ({"n": N, "kind": KIND}, grid(n=[1]), "sampler: search_space", "for kind"),
        ({"size": SIZE}, grid(size=[8], sise=[8]), "sampler: search_space: sise", "did you mean: size"),
        ({"n": N}, grid(n=[]), "sampler: search_space: n", "is an empty list"),
        ({"n": N}, grid(n=[1, 7]), "sampler: search_space: n", "7 is not a value of n"),
        ({"n": N}, grid(n=[1, [2]]), "sampler: search_space: n", "[2] is not a value of n"),
        ({"n": N}, grid(n=[1, 2, 1]), "sampler: search_space: n", "1 is listed twice"),
        (
            {"size": SIZE}, grid(size=[8, 9]),
            "sampler: search_space: size", "legal: 8, 16, 32",
        ),
        (
            {"n": N}, {**grid(n=[1, 2]), "n_trials": 3},
            "n_trials", "3 is more than the 2 combinations of the grid",
        ),
        (
            ALL, sampler("PartialFixedSampler", fixed_params={"knd": "a"}, base_sampler="RandomSampler"),
            "sampler: fixed_params: knd", "did you mean: kind",
        ),
        (
            ALL, sampler("PartialFixedSampler", fixed_params={"n": 5}, base_sampler="RandomSampler"),
            "sampler: fixed_params: n", "legal: from 1 to 4",
        ),
        (
            ALL, {**TWO, **sampler("NSGAIIISampler", reference_points=[[1, 0, 0]])},
            "sampler: reference_points", "does not fit 2 metrics",
        ),
        (ALL, {"pruner": {"type": "HyperbandPruner", "min_resource": 0}}, "pruner: min_resource", "less than one step"),
        (
            ALL, {"pruner": {"type": "HyperbandPruner", "min_resource": 9, "max_resource": 3}},
            "pruner: max_resource", "3 is less than min_resource, 9",
        ),
        (
            ALL, {"pruner": {"type": "HyperbandPruner", "reduction_factor": 1}},
            "pruner: reduction_factor", "1 reduces nothing",
        ),
        (ALL, {"pruner": PATIENT_HYPERBAND}, "pruner: wrapped_pruner: min_resource", "less than one step"),
        (ALL, {"constraints": ["a <= 1", "a  <=  1"]}, "constraints: 1", "is there before"),
        (ALL, {"constraints": ["a <= kind"]}, "constraints: 0", "kind can be 'a', which is not a number"),
        (
            {"kind": KIND, "model:x": where_given(X)}, {"constraints": ["x <= 3"]},
            "constraints: 0", "x is not searched in every trial",
        ),
        (ALL, sampler("TPESampler", n_ei_candidates=0, n_startup_trials=2), "sampler", "cannot suggest values"),
        (ALL, sampler("TPESampler", prior_weight=-1.0, n_startup_trials=2), "sampler", "cannot suggest values"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    study: Any, parameters: dict[str, Any], keys: dict[str, Any], where: str, words: str
) -> None:
    problems = suitability_problems(study(parameters, **keys))
    assert [problem.where for problem in problems] == [f"optuna: {where}"]
    assert words in str(problems[0])


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        (ALL, sampler("CmaEsSampler", x0={"x": 0.0, "n": 2})),
        ({"kind": KIND, "model:x": X, "n": where_given(N)}, sampler("CmaEsSampler")),
        ({"model:x": STEPS, "n": N}, {**sampler("BruteForceSampler"), "n_trials": 12}),
        ({"n": N, "size": SIZE}, grid(n=[1, 2, 4], size=[8, 16, 32])),
        (ALL, {**TWO, **sampler("NSGAIIISampler", reference_points=[[1, 0], [0, 1]], population_size=2)}),
        (ALL, {**TWO, **sampler("GPSampler")}),
        (ALL, {**TWO, **sampler("TPESampler", group=True), "constraints": ["a <= n"]}),
        ({"kind": KIND, "model:x": where_given(X, otherwise=0.5)}, {"constraints": ["x <= 3"]}),
        ({}, sampler("CmaEsSampler")),
        (ALL, {"pruner": {"type": "HyperbandPruner"}}),
    ],
)
def test_what_can_work_is_not(study: Any, parameters: dict[str, Any], keys: dict[str, Any]) -> None:
    assert suitability_problems(study(parameters, **keys)) == []


def test_a_dry_run_finds_what_a_sampler_of_the_users_own_cannot_do(study: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        dedent("""
            from optuna.pruners import BasePruner
            from optuna.samplers import RandomSampler

            class Floats(RandomSampler):
                def sample_independent(self, study, trial, name, distribution):
                    return distribution.low + distribution.undefined

            class Never(BasePruner):
                def prune(self, study, trial):
                    raise LookupError("never")
        """)
    )
    (problem,) = suitability_problems(study(ALL, **sampler(f"{tmp_path}/mine.py:Floats")))
    assert "Floats cannot suggest values in this study: AttributeError" in problem.found
    (problem,) = suitability_problems(study(ALL, pruner=f"{tmp_path}/mine.py:Never"))
    assert problem.where == "optuna: pruner"
    assert problem.found == "Never cannot decide in this study: LookupError: never"


@pytest.mark.parametrize(
    ("parameters", "keys", "words"),
    [
        (ALL, sampler("NSGAIISampler"), "50 trials are drawn at random before NSGAIISampler begins"),
        ({"kind": KIND, "model:x": where_given(X)}, sampler("QMCSampler"), "QMCSampler draws x at random"),
        (ALL, sampler("CmaEsSampler"), "CmaEsSampler draws kind at random"),
        ({"kind": KIND, "model:x": where_given(X)}, sampler("GPSampler"), "GPSampler draws x at random"),
        ({"kind": KIND, "model:x": where_given(X)}, sampler("TPESampler"), "group: true takes together"),
        (ALL, {"constraints": "a <= 1"}, "RandomSampler samples without regard to the constraints"),
        (ALL, {**sampler("TPESampler"), "constraints": "x_sen <= 1"}, "'x_sen'; did you mean x_seen?"),
        (ALL, {**sampler("TPESampler"), "constraints": "val_los <= 1"}, "'val_los'; did you mean val_loss?"),
    ],
)
def test_notes(study: Any, parameters: dict[str, Any], keys: dict[str, Any], words: str) -> None:
    (note,) = warnings_for(study(parameters, **keys))
    assert words in note


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        (ALL, sampler("NSGAIISampler", population_size=4)),
        ({"kind": KIND, "model:x": where_given(X)}, sampler("TPESampler", group=True)),
        (ALL, {**sampler("TPESampler"), "constraints": ["x_seen <= 1", "latency_ms <= n"]}),
    ],
)
def test_nothing_is_noted_without_need(study: Any, parameters: dict[str, Any], keys: dict[str, Any]) -> None:
    assert warnings_for(study(parameters, **keys)) == []


def test_check_tells_problems_and_notes(tmp_path: Path) -> None:
    done = Project(tmp_path, sampler="CmaEsSampler", **TWO).run(verb="check", expect=2)
    assert "optuna: sampler: type: CmaEsSampler cannot optimize 2 metrics" in done.stderr
    done = Project(tmp_path, sampler="NSGAIISampler", constraints="x_sen <= 1").run(verb="check")
    assert "note: optuna: constraints: 0: nothing is known to be named 'x_sen'; did you mean x_seen?" in done.stderr
