"""`aimlhpo change` beside agents that are at work, and what a later start makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.cli.main import main
from aimlhpo.config.load import load_target
from aimlhpo.ledger.changes import current_config, read_changes, settle_start
from aimlhpo.storage.study import load_study
from tests.cli.studies import fill_study
from tests.project import Project
from tests.waiting import wait_until

HELD = """
    import os, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            # Trials from the number in the file `hold` on wait until it is gone.
            hold = Path(__file__).parent / "hold"
            (Path(__file__).parent / f"pid-{trial.number}").write_text(str(os.getpid()))
            while hold.exists() and trial.number >= int(hold.read_text() or 0):
                time.sleep(0.05)
            return {"val_loss": conf["model"]["x"]}
"""
WORKERS, FREE = 16, 20


def change(project: Project, *changes: str, expect: int = 0) -> None:
    assert main(["change", str(project.save_path), *changes]) == expect


@contextmanager
def at_work(project: Project, workers: int = WORKERS, free: int = FREE) -> Iterator[subprocess.Popen[str]]:
    """The study with that many trials finished, and one running on each worker, until the file `hold` is removed."""
    hold = project.folder / "hold"
    hold.write_text(str(free))
    running = project.start("--local", str(workers))
    try:
        wait_until(lambda: (project.save_path / ".aimlhpo" / "config" / "model.yml").exists())
        wait_until(lambda: project.states().get("COMPLETE", 0) == free and project.begun() == workers)
        yield running
    finally:
        hold.unlink(missing_ok=True)
        running.kill()
        running.wait()


class HeldProject(Project):
    def begun(self) -> int:
        """How many trials run on a worker."""
        claims = [
            trial.system_attrs.get("aimlhpo:claim") for trial in self.study().trials if trial.state.name == "RUNNING"
        ]
        return sum(bool(claim and claim["since"]) for claim in claims)

    def trains(self, number: int) -> bool:
        """Whether the process that began the trial is still there."""
        pid = self.folder / f"pid-{number}"
        return pid.exists() and Path("/proc", pid.read_text()).exists()

    def let_go(self, running: subprocess.Popen[str]) -> str:
        """Let the trials that are held end, and wait for the study's end; what was printed."""
        (self.folder / "hold").unlink()
        said, _ = running.communicate(timeout=120)
        assert running.returncode == 0, said
        return said


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_budget_grows_while_sixteen_workers_run(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str
) -> None:
    project = HeldProject(tmp_path, HELD, storage=make_storage_url(kind), n_trials=40)
    with at_work(project) as running:
        change(project, "optuna:n_trials=57")
        project.let_go(running)
    assert project.states() == {"COMPLETE": 57}


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_budget_shrinks_below_what_runs_while_sixteen_workers_run(
    tmp_path: Path, make_storage_url: Callable[[str], str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = HeldProject(tmp_path, HELD, storage=make_storage_url(kind), n_trials=100, grace_period=4)
    with at_work(project) as running:
        change(project, f"optuna:n_trials={FREE + 5}")
        found = re.search(r"given back.*: trials (.*)", capsys.readouterr().out)
        assert found is not None
        given_back = set(map(int, found[1].split(", ")))
        # Nothing of what was given back goes on training.
        wait_until(lambda: not any(project.trains(number) for number in given_back))
        said = project.let_go(running)
    assert project.states() == {"COMPLETE": FREE + 5, "WAITING": len(given_back)}
    assert "no longer this agent's; given back" in said


def test_budget_cannot_be_less_than_what_has_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = HeldProject(tmp_path, n_trials=8)
    fill_study(project, 5)
    change(project, "optuna:n_trials=4", expect=2)
    assert "optuna: n_trials: 4 is fewer than the 5 trials that have finished" in capsys.readouterr().err
    change(project, "optuna:n_trials=5")
    assert status_of(project, capsys)["ended"]["rule"] == "n_trials"


def status_of(project: Project, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["status", str(project.save_path), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_status_tells_what_was_changed_and_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = HeldProject(tmp_path, n_trials=8)
    fill_study(project, 2)
    before = time.time()
    change(project, "optuna:n_trials=12", "optuna:patience=4")
    (first, second) = sorted(status_of(project, capsys)["changes"], key=lambda each: str(each["key"]))
    assert (first["key"], first["before"], first["value"]) == ("optuna:n_trials", 8, 12)
    assert (second["key"], second["before"], second["value"]) == ("optuna:patience", None, 4)
    assert before <= first["at"] == second["at"] <= time.time()
    assert main(["status", str(project.save_path)]) == 0
    assert "changed  optuna: n_trials 8 -> 12 (" in capsys.readouterr().out
    change(project, "optuna:n_trials=12", expect=3)  # it is so already


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            "optuna:parameters:model:x:settings:high=2.0",
            ["optuna: parameters: cannot be", "--allow-changes", "warm_start"],
        ),
        ("optuna:direction=maximize", ["optuna: direction: cannot be changed", "warm_start_from"]),
        ("optuna:sampler=TPESampler", ["optuna: sampler: cannot be changed", "reload: 1"]),
        ("model:units=8", ["the model YAML: cannot be changed", "warm_start_from"]),
        ("optuna:name=other", ["optuna: study_name: cannot be changed", "reload: 0"]),
        ("optuna:n_trials=none", ["optuna: n_trials (from optuna:n_trials=none): 'none' is not a whole number"]),
        ("optuna:n_trails=9", ["optuna: n_trails", "did you mean: n_trials"]),
        ("n_trials", ["n_trials: is not an override"]),
        ("optuna:enqueue=[{x: 7.0}]", ["optuna: enqueue"]),
    ],
)
def test_what_cannot_be_changed_is_refused_with_the_way_to_do_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str, told: list[str]
) -> None:
    project = HeldProject(tmp_path)
    fill_study(project, 1)
    change(project, asked, "optuna:timeout=60", expect=2)
    said = capsys.readouterr().err
    assert [words for words in told if words not in said] == []
    assert status_of(project, capsys)["changes"] == []


def test_what_could_not_be_submitted_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = HeldProject(tmp_path, slurm={"jobs": 4, "batch": {"array": "1-4", "time": "01:00:00"}})
    fill_study(project, 1)
    change(project, "slurm:keep=true", expect=2)
    assert "slurm:keep: does not go with `array`" in capsys.readouterr().err
    assert status_of(project, capsys)["changes"] == []


def test_a_section_of_jobs_is_changed_by_its_name_or_its_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = [{"jobs": 2, "batch": {"partition": "a100"}}, {"jobs": 3, "batch": {"partition": "v100"}}]
    project = HeldProject(tmp_path, slurm=sections, storage="journal")
    fill_study(project, 1)
    change(project, "slurm:1:jobs=7", "slurm:a100:keep=true")
    assert "slurm: v100: jobs 3 -> 7" in capsys.readouterr().out
    change(project, "slurm:v100:batch:time=60", expect=2)
    assert "slurm: v100: batch: cannot be changed while the study runs" in capsys.readouterr().err
    config, told = settle_start(load_study(project.config), project.config)
    assert [(each.jobs, each.keep) for each in config.sections] == [(2, True), (7, False)]
    assert any(line.startswith("slurm: v100: jobs is 7, as `aimlhpo change` set it on ") for line in told)
    project.run("optuna:reload=1", "slurm:1:jobs=3", "--create-only")  # the command line wins
    assert [(each.jobs, each.keep) for each in load_target(project.save_path).sections] == [(2, True), (3, False)]


def test_enqueued_trials_run_next(tmp_path: Path) -> None:
    project = HeldProject(tmp_path, HELD, n_trials=8)
    with at_work(project, workers=1, free=3) as running:
        change(project, "optuna:enqueue=[{x: 0.125}, {x: 0.25}]")
        project.let_go(running)
    values = [trial.params["x"] for trial in project.study().trials]
    assert {0.125, 0.25} <= set(values)
    assert project.states() == {"COMPLETE": 8}


def test_a_change_holds_at_the_next_start_until_the_file_is_changed(tmp_path: Path) -> None:
    project = HeldProject(tmp_path, n_trials=3)
    project.run("--local", "1")
    change(project, "optuna:n_trials=5")
    told = project.run("optuna:reload=1", "--local", "1").stderr
    assert "optuna: n_trials is 5, as `aimlhpo change` set it on " in told
    assert "the file still says 3" in told
    assert project.states() == {"COMPLETE": 5}

    project.hyperparameters.write_text(project.hyperparameters.read_text().replace("n_trials: 3", "n_trials: 7"))
    assert "n_trials" not in project.run("optuna:reload=1", "--local", "1").stderr
    assert project.states() == {"COMPLETE": 7}
    project.run("optuna:reload=1", "-t", "9", "--local", "1")
    assert project.states() == {"COMPLETE": 9}
    stored = [(each.value, each.by) for each in read_changes(project.study())]
    assert stored == [(5, "change"), (7, "start"), (9, "start")]


def test_an_edited_file_wins_over_a_change_before_any_trial(tmp_path: Path) -> None:
    project = HeldProject(tmp_path, n_trials=8)
    fill_study(project, 0)
    change(project, "optuna:n_trials=12")
    project.hyperparameters.write_text(project.hyperparameters.read_text().replace("n_trials: 8", "n_trials: 7"))
    study = load_study(project.config)
    config, told = settle_start(study, project.config)
    assert told == []
    assert config.optuna.n_trials == current_config(study, config).optuna.n_trials == 7  # the latter is the agents'


def test_another_study_in_the_same_directory_is_no_change(tmp_path: Path) -> None:
    first = HeldProject(tmp_path, n_trials=8)
    fill_study(first, 2)
    config = first.config
    fill_study(HeldProject(tmp_path, name="another", n_trials=20, trial_timeout=60), 2)
    study = load_study(config)
    assert settle_start(study, config) == (config, [])
    assert read_changes(study) == []


def test_running_agents_take_up_what_a_later_start_says(tmp_path: Path) -> None:
    project = HeldProject(tmp_path, HELD, n_trials=20)
    with at_work(project, workers=4, free=6) as running:
        project.run("optuna:reload=1", "-t", "12", "--create-only")
        project.let_go(running)
    assert project.states()["COMPLETE"] == 12


def test_limits_and_rules_are_taken_up_by_running_agents(tmp_path: Path) -> None:
    project = HeldProject(tmp_path, HELD, n_trials=8, grace_period=2)
    with at_work(project, workers=2, free=3) as running:
        change(project, "optuna:trial_timeout=1", "optuna:max_consecutive_failures=1000")
        wait_until(lambda: project.states().get("FAIL", 0) >= 12)  # more in a row than were allowed before
        change(project, "optuna:trial_timeout=null", "optuna:target_value=1.0")
        said = project.let_go(running)
    assert "ended by target_value" in said
    assert project.states()["COMPLETE"] < 8
