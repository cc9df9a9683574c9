"""Every mistake is told before anything runs, all at once, and looking for them changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from aimlhpo.check.check import check
from aimlhpo.check.settings import load_config
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.open import open_storage
from tests.project import QUADRATIC, Project

OBJECTIVE_OF_ANOTHER_KIND = "x = 1\n"


def told(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def begun(project: Project, trials: int = 1) -> optuna.Study:
    """The project's study, with finished trials in it."""
    config = project.config
    study = begin_study(config)
    config.write_snapshot()
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, 1.0))
    return study


def everything_in(folder: Path) -> dict[str, bytes]:
    """The content of all files, but for what Python keeps of a module that it has imported."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "__pycache__")
    return {str(path): path.read_bytes() for path in files}


def test_a_good_study_has_no_problems_and_leaves_no_trace(tmp_path: Path) -> None:
    project = Project(tmp_path)
    before = everything_in(tmp_path)
    assert check(project.config) == []
    assert not project.save_path.exists()
    assert everything_in(tmp_path) == before


def test_all_problems_come_at_once_and_the_objective_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "file").write_text("")
    project = Project(
        tmp_path, objective="import no_such_module_here", gpu=True, save_path=str(tmp_path / "file" / "x")
    )
    problems = check(project.config)
    assert [problem.where for problem in problems if problem.where != "optuna: storage"] == [
        "optuna: save_path",
        "optuna: gpu",
        "optuna: objective",
    ]
    assert str(problems[-1]).splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module_here'"


def test_gpus_are_looked_for_only_where_the_study_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    project = Project(tmp_path, slurm={"jobs": 2}, gpu=True)
    assert check(project.config) == []
    assert "GPU" in told(check(project.config, local=True))


def test_an_objective_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "no class Objective" in told(check(Project(tmp_path, objective=OBJECTIVE_OF_ANOTHER_KIND).config))


def test_no_objective_is_a_problem(tmp_path: Path) -> None:
    project = Project(tmp_path)
    settings = yaml.safe_load(project.hyperparameters.read_text())
    del settings["optuna"]["objective"]
    project.hyperparameters.write_text(yaml.safe_dump(settings))
    assert "objective: is missing" in told(check(project.config))


@pytest.mark.parametrize("place", ["file/below", "/proc/nobody/writes/here"])
def test_a_save_path_that_cannot_be_written_is_told(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problems = check(Project(tmp_path, save_path=str(tmp_path / place)).config)
    assert any(problem.where == "optuna: save_path" for problem in problems)


def test_a_save_path_of_another_study_is_refused(tmp_path: Path) -> None:
    begun(Project(tmp_path))
    found = told(check(Project(tmp_path, name="other").config))
    assert "belongs to the study 's'" in found
    assert "'other'" in found


def test_a_study_with_trials_is_not_begun_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    begun(project, trials=2)
    before = everything_in(project.save_path)
    found = told(check(project.config))
    assert "already has 2 trials" in found
    assert "reload: 1" in found
    assert everything_in(project.save_path) == before


def test_a_study_without_trials_may_begin(tmp_path: Path) -> None:
    project = Project(tmp_path)
    begun(project, trials=0)
    assert check(project.config) == []


def test_reload_of_nothing_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    problems = check(Project(tmp_path, reload=1).config)
    assert "no study 's'" in told(problems)
    assert not (tmp_path / "run").exists()


def test_reload_of_the_same_study_is_fine(tmp_path: Path) -> None:
    begun(Project(tmp_path))
    assert check(Project(tmp_path, reload=1).config) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"direction": "maximize"}, ["direction", "maximize", "minimize"]),
        ({"metric": "accuracy"}, ["metric", "accuracy", "val_loss"]),
        (
            {"parameters": {"model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 2.0}}}},
            ["x", "2.0", "1.0"],
        ),
    ],
)
def test_a_changed_study_is_refused_with_key_and_both_values(
    change: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    begun(Project(tmp_path))
    found = told(check(Project(tmp_path, reload=1, **change).config))
    assert all(word in found for word in named)


def test_a_changed_model_is_refused_unless_allowed(tmp_path: Path) -> None:
    begun(Project(tmp_path))
    project = Project(tmp_path, reload=1)
    project.model.write_text(yaml.safe_dump({"model": {"x": 0.9, "units": 5, "new": [1]}}))
    found = told(check(project.config))
    assert "model: model:units: is 5, but the study was made with 4" in found
    assert "model:new" in found
    assert "--allow-changes" in found
    assert check(project.config, allow_changes=True) == []


def test_a_searched_value_may_differ_in_the_model(tmp_path: Path) -> None:
    begun(Project(tmp_path))
    project = Project(tmp_path, reload=1)
    project.model.write_text(yaml.safe_dump({"model": {"x": 0.1, "units": 4}}))
    assert check(project.config) == []


@pytest.mark.parametrize(
    ("storage", "named"),
    [
        ("postgresql://u:secret@127.0.0.1:1/d", "${PASSWORD}"),
        ("postgresql://u@127.0.0.1:1/d", "127.0.0.1:1"),
        ("redis://127.0.0.1:1", "127.0.0.1:1"),
        ("journal:///proc/nobody/x.journal", "cannot be written"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told(storage: str, named: str, tmp_path: Path) -> None:
    problems = check(Project(tmp_path, storage=storage).config)
    assert [problem.where for problem in problems] == ["optuna: storage"]
    assert named in told(problems)
    assert "secret" not in told(problems)


def test_a_study_of_plain_optuna_is_seen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plain.db"
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    study.tell(study.ask(), 1.0)
    assert "already has 1 trials" in told(check(Project(tmp_path, storage=url).config))


def test_a_metric_named_twice_is_told(tmp_path: Path) -> None:
    goals: dict[str, Any] = {"metric": ["a", "a"], "direction": ["minimize", "minimize"]}
    assert "named twice" in told(check(Project(tmp_path, **goals).config))


def test_slurm_options_that_cannot_work_are_told_unless_it_runs_here(tmp_path: Path) -> None:
    project = Project(tmp_path, slurm={"jobs": 2, "batch": {"nodes": "2"}})
    assert "nodes" in told(check(project.config))
    assert check(project.config, local=True) == []


def test_sqlite_on_a_network_file_system_is_refused_for_several_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimlhpo.storage.locks.MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text("22 1 259:1 / / rw - nfs4 server:/ rw\n")
    sqlite = f"sqlite:///{tmp_path}/s.db"
    found = told(check(Project(tmp_path, slurm={"jobs": 2}, storage=sqlite).config))
    assert "nfs4" in found
    assert "journal" in found
    assert "postgresql" in found
    assert check(Project(tmp_path, slurm={"jobs": 1}, storage=sqlite).config) == []
    assert check(Project(tmp_path, slurm={"jobs": 2}, storage="journal").config) == []
    assert check(Project(tmp_path, slurm={"jobs": 2}).config) == []


def test_a_file_system_whose_locks_stay_on_their_node_is_refused_for_several_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimlhpo.storage.locks.MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text("22 1 259:1 / / rw - lustre server:/ rw,localflock\n")
    found = told(check(Project(tmp_path, slurm={"jobs": 2}, storage="journal").config))
    assert "localflock" in found
    assert check(Project(tmp_path, slurm={"jobs": 1}, storage="journal").config) == []


def test_several_jobs_begin_with_a_journal_and_go_on_with_what_is_there(tmp_path: Path) -> None:
    assert Project(tmp_path).config.optuna.storage.startswith("sqlite:")
    assert Project(tmp_path, slurm={"jobs": 1}).config.optuna.storage.startswith("sqlite:")
    several = Project(tmp_path, slurm={"jobs": 2})
    assert several.config.optuna.storage == f"journal://{several.save_path}/s.journal"
    begun(several)
    assert Project(tmp_path).config.optuna.storage.startswith("journal:")


def test_several_jobs_go_on_with_an_sqlite_file(tmp_path: Path) -> None:
    begun(Project(tmp_path))
    assert Project(tmp_path, slurm={"jobs": 2}).config.optuna.storage.startswith("sqlite:")


def test_a_damaged_copy_of_the_configuration_is_no_obstacle(tmp_path: Path) -> None:
    project = Project(tmp_path)
    begun(project, trials=0)
    project.config.paths.hyperparameters.write_text("{")
    assert check(project.config) == []


def test_the_folder_of_the_objective_is_not_littered(tmp_path: Path) -> None:
    check(Project(tmp_path, objective="import json\n" + QUADRATIC.replace("    ", "", 1)).config)
    assert "run" not in os.listdir(tmp_path)


def test_the_command_line_can_name_another_save_path(tmp_path: Path) -> None:
    project = Project(tmp_path)
    config = load_config(project.hyperparameters, project.model, (), {"save_path": str(tmp_path / "elsewhere")})
    assert check(config) == []


@pytest.mark.parametrize(
    ("section", "told_of"),
    [
        ({"trials_per_gpu": "auto", "workers_per_job": 2}, "workers_per_job sets"),
        ({"trials_per_gpu": "auto", "gpus_per_worker": 2}, "gpus_per_worker is 2"),
        ({"trials_per_gpu": "auto", "nodes_per_worker": 2}, "nodes_per_worker is 2"),
        ({"trials_per_gpu": 2, "max_trials_per_gpu": 3}, "slurm: max_trials_per_gpu: is the limit of auto"),
        ([{"name": "a100", "max_trials_per_gpu": 3}], "slurm: a100: max_trials_per_gpu: is the limit of auto"),
        ({"trials_per_gpu": "aut"}, "legal: a whole number, 1 or more, or auto"),
        ({"trials_per_gpu": "auto"}, "legal: pip install 'aimlhpo[gpu]'"),
    ],
)
def test_measuring_how_many_trials_share_a_gpu_needs_a_gpu_for_each_and_nvml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: Any, told_of: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    with pytest.raises(ConfigError) as refused:
        load_config(Project(tmp_path, slurm=section).hyperparameters, tmp_path / "model.yml")
    assert told_of in str(refused.value)
    # Jobs may run in another Python, which has it; they say so if not.
    assert Project(tmp_path, slurm={"trials_per_gpu": "auto", "kernel": "conda activate x"}).config.slurm is not None
