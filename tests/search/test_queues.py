"""Full grids through the command: every combination once, failures told, values drawn once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from aimlhpo.cli.verbs.status import screen
from aimlhpo.errors import ExitCode
from aimlhpo.results.status import read_status
from aimlhpo.search.queues import AT_ONCE, queue_of
from aimlhpo.search.warm_start import begin_study
from tests.conftest import STORAGE_KINDS
from tests.project import QUADRATIC, Project

X = {"type": "linear", "settings": {"name": "x", "start": 0.0, "end": 0.4, "step": 0.1}}
UNITS = {"type": "multiple", "settings": {"name": "units", "values": [1, 2, 4]}}
DRAWN = {
    "type": "random",
    "settings": {"name": "x", "distribution": {"type": "uniform", "settings": {"low": 0, "high": 1}}, "count": 3},
}
PICKY = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if conf["model"]["units"] == 2:
                raise ValueError("two is too few")
            return {"val_loss": conf["model"]["x"]}
"""


def grid(folder: Path, objective: str = QUADRATIC, n_trials: int | None = None, **optuna_keys: Any) -> Project:
    keys = {"parameters": {"model:x": X, "model:units": UNITS}, **optuna_keys}
    return Project(folder, objective, sampler=None, n_trials=n_trials, **keys)


def combinations(study: optuna.Study) -> Counter[tuple[Any, ...]]:
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return Counter(tuple(sorted(trial.params.items())) for trial in done)


@pytest.mark.parametrize("kind", STORAGE_KINDS)
def test_every_combination_is_run_once(tmp_path: Path, make_storage_url: Callable[[str], str], kind: str) -> None:
    project = grid(tmp_path, storage=make_storage_url(kind))
    project.run("-t", "4", "--local", "2")
    assert sum(combinations(project.study()).values()) == 4
    project.run("-r", "1", "--local", "3")
    found = combinations(project.study())
    assert (len(found), set(found.values())) == (15, {1})


def test_failed_combinations_are_told_and_run_again_when_the_study_is(tmp_path: Path) -> None:
    project = grid(tmp_path, PICKY)
    assert "15 of 15 permutations" in project.run(verb="check").stdout
    told = project.run("--local", "2").stderr
    assert "5 of 15 permutations have failed" in told
    assert project.states() == {"COMPLETE": 10, "FAIL": 5}
    status = read_status(project.study(), project.config)
    assert "agents   none; 5 permutations have failed: start it again with reload: 1" in screen(status, project.config)
    (tmp_path / "objective.py").write_text((tmp_path / "objective.py").read_text().replace("== 2", "== 0"))
    project.run("-r", "1")
    assert project.states() == {"COMPLETE": 15, "FAIL": 5}
    assert len(combinations(project.study())) == 15


def test_retries_have_the_values_of_the_combination(tmp_path: Path) -> None:
    project = grid(tmp_path, PICKY, max_retries=1)
    project.run()
    assert project.states() == {"COMPLETE": 10, "FAIL": 10}
    failed = [trial.params for trial in project.study().trials if trial.state.name == "FAIL"]
    assert all(params["units"] == 2 for params in failed)


def test_random_values_are_drawn_once_for_all_starts(tmp_path: Path) -> None:
    project = grid(tmp_path, parameters={"model:x": DRAWN, "model:units": UNITS})
    project.run("-t", "2")
    project.run("-r", "1")
    found = combinations(project.study())
    assert (len(found), set(found.values())) == (9, {1})
    assert len({dict(params)["x"] for params in found}) == 3
    project.run("-r", "1", expect=ExitCode.NOTHING_TO_DO)


def test_nothing_else_is_sampled(tmp_path: Path) -> None:
    objective = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                return {"val_loss": trial.suggest_float("depth", 0, 1)}
    """
    project = grid(tmp_path, objective, parameters={"model:units": UNITS})
    project.run()
    assert project.states() == {"FAIL": 3}
    assert "'depth' is not a parameter of the grid" in project.records()[0]["cause"]


def test_a_large_grid_is_queued_in_parts(tmp_path: Path) -> None:
    large = {"type": "linear", "settings": {"name": "x", "start": 1, "end": 10_000, "step": 1}}
    project = grid(tmp_path, parameters={"model:x": large}, storage=f"journal:///{tmp_path}/s.journal")
    study = begin_study(project.config)
    assert project.config.optuna.n_trials == 10_000
    assert project.states() == {"WAITING": AT_ONCE}
    queue = queue_of(study, project.config)
    assert queue is not None
    assert queue.fill()
    values = [trial.system_attrs["fixed_params"]["x"] for trial in study.trials]
    assert values == list(range(2 * AT_ONCE))


def test_changed_values_are_another_study(tmp_path: Path) -> None:
    project = grid(tmp_path)
    begin_study(project.config)
    changed = "optuna:parameters:model:x:settings:step=0.05"
    refused = project.run("-r", "1", changed, "optuna:parameters:model:x:settings:end=0.2", expect=ExitCode.CONFIG)
    assert "parameters: x" in refused.stderr
