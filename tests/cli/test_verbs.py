"""The verbs from the command line, on real studies: what they print, write and return."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from aimlhpo.cli.main import main
from aimlhpo.search.warm_start import begin_study
from tests.project import Project
from tests.waiting import wait_until

FAILING = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number % 2:
                raise ValueError("no luck, trial %d" % trial.number)
            return {"val_loss": conf["model"]["x"]}
"""
SLOW = """
    import time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            trial.report(1.5, 3)
            time.sleep(300)
            return {"val_loss": 1.0}
"""


def run(project: Project, verb: str, *arguments: str) -> int:
    return main([verb, str(project.hyperparameters), str(project.model), *arguments])


def fill(project: Project, number: int) -> optuna.Study:
    """The project's study with trials as plain Optuna makes them, so that nothing has to train."""
    config = project.config
    study = begin_study(config)
    config.write_snapshot()
    for _ in range(number):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, 1.0))
    return study


def test_optimize_runs_the_study_and_says_what_came_out(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=4)
    done = project.run("--local", "2")
    assert "4/4 trials done" in done.stdout
    assert "best val_loss" in done.stdout
    assert str(project.save_path / "results.csv") in done.stdout
    best = yaml.safe_load((project.save_path / "best.yml").read_text())
    assert best["model"]["x"] == project.study().best_params["x"]
    assert best["model"]["units"] == 4
    assert "Warning" not in done.stderr
    assert len((project.save_path / "results.csv").read_text().splitlines()) == 5


def test_a_finished_study_runs_nothing_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Project(tmp_path, n_trials=2), 2)
    project = Project(tmp_path, n_trials=2, reload=1)
    assert run(project, "optimize") == 3
    assert "nothing to do" in capsys.readouterr().out
    assert project.states() == {"COMPLETE": 2}


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    fill(Project(tmp_path), 2)
    project = Project(tmp_path)
    project.run("-r", "1", "-t", "4", "--local")
    assert project.states() == {"COMPLETE": 4}


def test_a_changed_objective_is_told_when_the_study_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=1)
    assert "note:" not in project.run().stderr
    assert run(project, "optimize", "-r", "1", "-t", "2", "-c") == 0
    assert "note:" not in capsys.readouterr().err
    (tmp_path / "objective.py").write_text((tmp_path / "objective.py").read_text() + "\n# another text\n")
    assert run(project, "optimize", "-r", "1", "-t", "2", "-c") == 0
    assert "objective.py has changed" in capsys.readouterr().err


def test_optimize_with_create_only_makes_the_study(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert run(project, "optimize", "-c") == 0
    assert project.states() == {}


def test_optimize_refuses_before_it_makes_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, objective="import nothing_of_this_name")
    assert run(project, "optimize") == 2
    assert capsys.readouterr().err.rstrip().endswith("No module named 'nothing_of_this_name'")
    assert not project.save_path.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-t", "abc"), "n_trials"),
        (("-t", "0"), "n_trials"),
        (("-t", "-5"), "n_trials"),
        (("-r", "perhaps"), "reload"),
        (("-d", "sideways"), "direction"),
        (("optuna:no_such_key=1",), "no_such_key"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_words_on_the_command_line_are_told(
    arguments: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Project(tmp_path), "check", *arguments) == 2
    told = capsys.readouterr().err
    assert named in told
    assert "Traceback" not in told


def test_options_and_overrides_may_stand_in_any_order(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert run(project, "optimize", "-t", "5", "model:units=9", "-c", "optuna:pruner:type=NopPruner") == 0
    snapshot = project.save_path / ".aimlhpo" / "config"
    assert yaml.safe_load((snapshot / "model.yml").read_text())["model"]["units"] == 9
    assert yaml.safe_load((snapshot / "hyperparameters.yml").read_text())["optuna"]["n_trials"] == 5


def test_local_may_stand_in_front_of_the_files(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert main(["optimize", "--local", str(project.hyperparameters), str(project.model), "-c"]) == 0


def test_a_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    assert run(project, "optimize", "--dry-run") == 0
    assert "n_trials" in capsys.readouterr().out
    assert not project.save_path.exists()


def test_a_dry_run_shows_the_batch_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, slurm={"jobs": 3, "batch": {"t": "01:00:00"}})
    assert run(project, "optimize", "--dry-run") == 0
    assert "#SBATCH --time" in capsys.readouterr().out


def test_ctrl_c_ends_with_its_exit_code_and_the_study_can_go_on(tmp_path: Path) -> None:
    project = Project(tmp_path, objective=SLOW, n_trials=2)
    process = project.start("--local", "2")
    wait_until((project.save_path / ".aimlhpo" / "config" / "model.yml").exists, "the study")
    wait_until(lambda: project.states() == {"RUNNING": 2}, "two trials")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "reload" in output
    assert "Traceback" not in output
    assert project.states() == {"WAITING": 2}


def test_check_says_what_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Project(tmp_path), "check") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ok")
    for word in ("SQLite", "RandomSampler", "NopPruner", "1: x", "minimize val_loss", "on this machine"):
        assert word in shown


def test_check_as_json_lists_the_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=0, direction="minimise")
    assert run(project, "check", "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    by_place = {problem["where"]: problem for problem in answer["problems"]}
    assert by_place.keys() >= {"optuna: n_trials", "optuna: direction"}
    assert by_place["optuna: direction"]["suggestion"] == "minimize"


def test_check_as_json_of_a_good_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Project(tmp_path), "check", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["problems"]) == (True, [])
    assert answer["summary"]["sampler"] == "RandomSampler"


def test_check_loads_no_framework_and_no_pandas(tmp_path: Path) -> None:
    project = Project(tmp_path)
    script = (
        "import sys; from aimlhpo.cli.main import main\n"
        f"assert main(['check', {str(project.hyperparameters)!r}, {str(project.model)!r}]) == 0\n"
        "print('LOADED', [n for n in ('torch', 'tensorflow', 'pandas', 'sqlalchemy', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("by_file", [True, False])
def test_results_are_rebuilt_from_the_storage(
    by_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    fill(project, 3)
    assert main(["results", str(project.hyperparameters if by_file else project.save_path)]) == 0
    assert len((project.save_path / "results.csv").read_text().splitlines()) == 4
    assert "3 finished trials" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["results", "status"])
def test_where_there_is_no_study_it_is_said(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    for place in (tmp_path, project.hyperparameters):
        assert main([verb, str(place)]) == 2
        assert "holds no study" in capsys.readouterr().err
    assert main([verb, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_status_tells_trials_best_and_that_nobody_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    study = fill(project, 3)
    assert main(["status", str(project.save_path)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 8 done: 3 complete" in shown
    assert f"(trial {study.best_trial.number})" in shown
    assert "5 trials are left" in shown


def status_of(project: Project, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["status", str(project.save_path), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_status_shows_agents_and_their_trials_and_reaps_when_they_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, objective=SLOW, n_trials=2)
    process = project.start("--local", "2")
    wait_until((project.save_path / ".aimlhpo" / "config" / "model.yml").exists, "the study")
    wait_until(lambda: project.states() == {"RUNNING": 2}, "two trials")
    wait_until(lambda: all(trial.intermediate_values for trial in project.study().trials), "reports")
    (agent,) = status_of(project, capsys)["agents"]
    assert sorted(trial["number"] for trial in agent["trials"]) == [0, 1]
    assert sorted(trial["slot"] for trial in agent["trials"]) == [0, 1]
    assert {tuple(trial["last_report"]) for trial in agent["trials"]} == {(3, 1.5)}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    after = status_of(project, capsys)
    assert after["agents"] == []
    assert sorted(after["reaped"]) == [0, 1]
    assert [(trial["number"], trial["attempts"]) for trial in after["interrupted"]] == [(0, 1), (1, 1)]
    assert main(["status", str(project.save_path), "--failed"]) == 0
    assert "trial 1: interrupted (" in capsys.readouterr().out
    assert project.states() == {"WAITING": 2}


def test_status_lists_failed_trials_with_cause_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, objective=FAILING, n_trials=3)
    project.run("--local")
    assert main(["status", str(project.save_path), "--failed"]) == 0
    shown = capsys.readouterr().out
    assert "trial 1: exception: ValueError: no luck, trial 1" in shown
    logs = [line.split(" from byte ") for line in shown.splitlines() if "/logs/" in line]
    assert len(logs) >= 1
    for path, offset in logs:
        assert "no luck" in Path(path.strip()).read_bytes()[int(offset) :].decode()


def test_status_without_failures_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill(project, 1)
    assert main(["status", str(project.save_path), "--failed"]) == 0
    assert "no trial has failed" in capsys.readouterr().out


def test_status_changes_no_file_of_a_quiet_study(tmp_path: Path) -> None:
    project = Project(tmp_path)
    fill(project, 2)
    before = {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()}
    assert main(["status", str(project.save_path)]) == 0
    after = {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()}
    assert {path: text for path, text in after.items() if text or path in before} == before


def test_the_schema_is_json_and_knows_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"log", "slurm", "optuna"} <= schema["properties"].keys()
