"""Samplers and pruners that are not Optuna's: from a file, from a package, from OptunaHub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import optuna
import pytest

from aimlhpo.check.json_schema import json_schema
from aimlhpo.config.optuna_section import StrategySection
from aimlhpo.search import building
from aimlhpo.search.building import check_strategy, make_pruner, make_sampler
from aimlhpo.search.sampling import reseed
from tests.project import Project

SAMPLERS = """
    import numpy
    import optuna
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.pruners import BasePruner

    HELPER = None

    class Lucky(RandomSampler):
        def __init__(self, number: int = 7, *, base: BaseSampler | None = None, seed: int | None = None) -> None:
            super().__init__(seed)
            self.number, self.base, self.seed = number, base, seed

    class Numpy(BaseSampler):
        def __init__(self, base_sampler=None, **anything):
            self.generator = numpy.random.default_rng(1)
            self.base_sampler, self.anything = base_sampler, anything

        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, name, distribution):
            return float(self.generator.random())

    class Hidden(BaseSampler):
        reseeded = 0

        def reseed_rng(self):
            self.reseeded += 1

        infer_relative_search_space = sample_relative = sample_independent = lambda *arguments: {}

    class Unfinished(BaseSampler):
        def sample_relative(self, study, trial, search_space):
            return {}

    class FromCode(RandomSampler):
        def __init__(self, function: "Callable[[int], int]"):
            super().__init__()

    class Choosy(RandomSampler):
        def __init__(self, share: float = 0.5):
            super().__init__()
            if not 0 < share < 1:
                raise RuntimeError(f"a share of {share}")

    class Never(BasePruner):
        def __init__(self, patience: int) -> None:
            self.patience = patience

        def prune(self, study, trial):
            return False
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(dedent(SAMPLERS))
    return path


def section(type: str, **arguments: Any) -> StrategySection:
    return StrategySection.model_validate({"type": type, **arguments})


def test_a_class_of_a_file(file: Path) -> None:
    sampler: Any = make_sampler(section(f"{file}:Lucky", number=3, base="TPESampler"), seed=5)
    assert (type(sampler).__name__, sampler.number, sampler.seed) == ("Lucky", 3, 5)
    assert isinstance(sampler.base, optuna.samplers.TPESampler)
    pruner: Any = make_pruner(section(f"{file}:Never", patience=2))
    assert pruner.patience == 2


def test_a_class_of_a_file_inside_another_strategy(file: Path) -> None:
    (problem,) = check_strategy("pruner", section("PatientPruner", patience=1, wrapped_pruner=f"{file}:Never"))
    assert problem.where == "optuna: pruner: wrapped_pruner: patience"
    wrapped = {"type": f"{file}:Never", "patience": 4}
    pruner: Any = make_pruner(section("PatientPruner", patience=1, wrapped_pruner=wrapped))
    assert pruner._wrapped_pruner.patience == 4


def test_a_class_of_a_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    assert type(make_sampler(section("mine.Lucky"), seed=1)).__name__ == "Lucky"
    assert isinstance(
        make_sampler(section("optuna.samplers.TPESampler", n_startup_trials=3), 1), optuna.samplers.TPESampler
    )
    monkeypatch.delitem(sys.modules, "mine")


def test_arguments_that_the_signature_leaves_open_are_passed_on(file: Path) -> None:
    sampler: Any = make_sampler(section(f"{file}:Numpy", anything_goes=3, base_sampler={"type": "RandomSampler"}), 1)
    assert sampler.anything == {"anything_goes": 3}
    assert isinstance(sampler.base_sampler, optuna.samplers.RandomSampler)


def test_random_states_of_every_kind_are_seeded(file: Path) -> None:
    sampler: Any = make_sampler(section(f"{file}:Numpy"), 1)
    reseed(sampler, 11)
    first = sampler.sample_independent(None, None, "x", None)
    reseed(sampler, 11)
    assert sampler.sample_independent(None, None, "x", None) == first
    reseed(sampler, 12)
    assert sampler.sample_independent(None, None, "x", None) != first


def test_a_sampler_without_a_random_state_in_sight_reseeds_itself(file: Path) -> None:
    sampler: Any = make_sampler(section(f"{file}:Hidden"), 1)
    reseed(sampler, 11)
    assert sampler.reseeded == 1


@pytest.mark.parametrize(
    ("name", "arguments", "where", "words"),
    [
        ("{file}", {}, "type", "did you mean: {file}:CLASS"),
        ("{file}:", {}, "type", "names no class of a file"),
        ("{folder}/none.py:Lucky", {}, "type", "no such file"),
        ("{file}:Luky", {}, "type", "did you mean: Lucky"),
        ("{file}:HELPER", {}, "type", "is not a sampler"),
        ("{file}:Never", {}, "type", "is not a sampler"),
        ("{file}:Unfinished", {}, "type", "lacks the methods infer_relative_search_space, sample_independent"),
        ("{file}:FromCode", {}, "type", "needs function, which a YAML file cannot hold"),
        ("{file}:Lucky", {"numbr": 3}, "numbr", "did you mean: number"),
        ("{file}:Lucky", {"number": "three"}, "number", "a whole number"),
        ("{file}:Lucky", {"base": 3}, "base", "is not a sampler"),
        ("{file}:Choosy", {"share": 2.0}, "", "a share of 2.0"),
        ("{broken}:X", {}, "type", "ZeroDivisionError: division by zero (line 2)"),
        ("{leaving}:X", {}, "type", "SystemExit"),
        ("no_such_package.module.Sampler", {}, "type", "No module named 'no_such_package'"),
        ("optuna.samplers.TPE", {}, "type", "did you mean: TPESampler"),
        ("optuna..TPE", {}, "type", "is not an import path"),
        ("package.module:Sampler", {}, "type", "did you mean: package.module.Sampler"),
        ("os.path.join", {}, "type", "is not a sampler"),
        ("samplers/auto_sampler", {}, "type", "did you mean: optunahub/samplers/auto_sampler"),
        ("optunahub/../../etc", {}, "type", "is not a package of OptunaHub"),
    ],
)
def test_mistakes(file: Path, name: str, arguments: dict[str, Any], where: str, words: str) -> None:
    broken, leaving = file.with_name("broken.py"), file.with_name("leaving.py")
    broken.write_text("x = 1\ny = x / 0\n")
    leaving.write_text("raise SystemExit(3)\n")
    known = {"file": file, "folder": file.parent, "broken": broken, "leaving": leaving}
    problems = check_strategy("sampler", section(name.format(**known), **arguments))
    assert [problem.where for problem in problems] == ["optuna: sampler" + (f": {where}" if where else "")]
    assert words.format(**known) in str(problems[0])


def test_a_study_with_a_sampler_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named from the directory that the command is started in, and found from everywhere."""
    monkeypatch.chdir(file.parent)
    project = Project(file.parent, sampler={"type": "mine.py:Numpy"}, n_trials=4, seed=1)
    project.run()
    assert len({trial.params["x"] for trial in project.study().trials}) == 4
    assert project.config.optuna.sampler is not None
    assert project.config.optuna.sampler.type == f"{file}:Numpy"


def test_help_imports_nothing(file: Path) -> None:
    file.write_text("raise RuntimeError('imported')")
    project = Project(file.parent, sampler={"type": "mine.py:Lucky"})
    assert "usage" in project.run("--help").stdout
    assert "imported" in project.run(verb="check", expect=2).stderr


def test_editors_take_other_names() -> None:
    from jsonschema import Draft202012Validator

    schema = json_schema()["$defs"]["OptunaSection"]["properties"]["sampler"]
    for value in ("TPESampler", "a.b.C", {"type": "mine.py:C", "x": 1}, {"type": "optunahub/samplers/auto_sampler"}):
        Draft202012Validator(schema).validate(value)
    assert not Draft202012Validator(schema).is_valid("TPESamplr")


# --- OptunaHub ---


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """OptunaHub's cache with one package in it, and no way to others."""
    home = tmp_path / "cache"
    folder = home / "github.com/optuna/optunahub-registry/main/package/samplers/lucky"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .sampler import Lucky\n__all__ = ['Lucky']\n")
    (folder / "sampler.py").write_text(dedent(SAMPLERS))
    two = folder.with_name("two")
    two.mkdir()
    (two / "__init__.py").write_text(dedent(SAMPLERS))
    needy = folder.with_name("needy")
    needy.mkdir()
    (needy / "__init__.py").write_text("import no_such_package_at_all\n")
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(home))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: a download fails at once
    building.load_hub_package.cache_clear()
    yield home
    building.load_hub_package.cache_clear()


def test_a_sampler_from_optunahub(registry: Path) -> None:
    sampler: Any = make_sampler(section("optunahub/samplers/lucky", number=2), seed=9)
    assert (type(sampler).__name__, sampler.number, sampler.seed) == ("Lucky", 2, 9)
    assert type(make_sampler(section("optunahub/samplers/two:Numpy"), seed=9)).__name__ == "Numpy"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("optunahub/samplers/lucky:Luky", "did you mean: Lucky"),
        ("optunahub/samplers/two", "did you mean: optunahub/samplers/two:Lucky"),
        ("optunahub/samplers/needy", "pip install no_such_package_at_all"),
        ("optunahub/samplers/far_away", "samplers/far_away cannot be loaded from OptunaHub: GitCommandError"),
        ("optunahub/samplers/lucky@v9", "~/.cache/optunahub"),
        ("optunahub/", "is not a package of OptunaHub"),
    ],
)
def test_mistakes_with_optunahub(registry: Path, name: str, words: str) -> None:
    (problem,) = check_strategy("sampler", section(name))
    assert problem.where == "optuna: sampler: type"
    assert words in str(problem)


def test_a_package_that_holds_no_pruner(registry: Path) -> None:
    (problem,) = check_strategy("pruner", section("optunahub/samplers/lucky"))
    assert "holds no pruner" in problem.found


def test_without_optunahub(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.search.building.find_spec", lambda name: None)
    (problem,) = check_strategy("sampler", section("optunahub/samplers/lucky"))
    assert problem.found == "the package optunahub is not installed"
    assert problem.legal == "pip install 'aimlhpo[optunahub]'"


def test_a_study_with_a_sampler_from_optunahub(registry: Path, tmp_path: Path) -> None:
    project = Project(tmp_path, sampler={"type": "optunahub/samplers/lucky"}, n_trials=3)
    project.run(env={**os.environ, "OPTUNAHUB_CACHE_HOME": str(registry)})
    assert project.states() == {"COMPLETE": 3}
    shown = subprocess.run(
        [*project.command("--show", "sampler")], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "number" in shown
