"""`aimlhpo confirm`: the best configurations trained again, counted exactly, and what it says of them."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from aimlhpo import open_study
from aimlhpo.cli.main import main
from aimlhpo.config.load import load_target
from aimlhpo.results.best import ranking
from aimlhpo.search.queues import find_confirmation
from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.trials import CONFIRMED
from tests.cli.studies import fill_study
from tests.project import Project
from tests.waiting import wait_until

NOISY = """
    import time
    from pathlib import Path
    from aimlhpo import BaseObjective

    HERE = Path(__file__).parent

    class Objective(BaseObjective):
        def train(self, trial, conf):
            with open(HERE / "notes", "a") as file:
                file.write(f"{conf['model']['x']} {trial.seed}\\\\n")
            while (HERE / "hold").exists():
                time.sleep(0.02)
            trial.report(conf["model"]["x"], 1)
            noise = (trial.seed % 1000) / 1e7  # too little to change the order of configurations
            return {"val_loss": conf["model"]["x"] + noise, "seed": trial.seed}
""".replace("\\\\n", "\\n")
UNLUCKY = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            x = conf["model"]["x"]
            return {"val_loss": x if trial.study.study_name == "s" else 1 - x, "size": x}
"""
FAILING_ONCE = """
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 1 and not (Path(__file__).parent / "mended").exists():
                raise ValueError("no luck")
            return {"val_loss": conf["model"]["x"]}
"""


def command(project: Project, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "aimlhpo", "confirm", str(project.save_path), *arguments]


def confirm(project: Project, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(project, *arguments), capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def trainings(project: Project) -> list[optuna.trial.FrozenTrial]:
    found = find_confirmation(project.study())
    assert found is not None
    return found.trials


def found(project: Project) -> dict[str, Any]:
    return dict(json.loads(confirm(project, "--json").stdout))


def notes(project: Project) -> list[str]:
    file = project.folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def test_after_a_kill_it_goes_on_and_every_training_is_counted_once(tmp_path: Path) -> None:
    project = Project(tmp_path, NOISY, n_trials=6)
    fill_study(project, 6)
    best = [trial.number for trial in ranking(project.study(), 2)]
    (tmp_path / "hold").touch()
    running = subprocess.Popen(
        command(project, "--top", "2", "--seeds", "3", "--local", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(notes(project)) == 2, "two trainings to begin")
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    (tmp_path / "hold").unlink()
    said = confirm(project, "--top", "2", "--seeds", "3", "--local", "2").stdout
    assert "6 of 6 trainings complete" in said
    assert f"proven   trial {best[0]}: mean " in said
    marks = [trial.system_attrs[CONFIRMED] for trial in trainings(project)]
    assert Counter(mark["trial"] for mark in marks) == dict.fromkeys(best, 3)
    assert {trial.state.name for trial in trainings(project)} == {"COMPLETE"}
    assert [record_of(trial)["metrics"]["seed"] for trial in trainings(project)] == [m["seed"] for m in marks]
    assert len(set(notes(project))) == 6  # the two that were killed were begun again, with the same seeds
    assert project.states() == {"COMPLETE": 6}
    assert "nothing to do" in confirm(project, "--top", "2", "--seeds", "3", expect=3).stdout
    assert len(notes(project)) == 8


def test_it_adds_to_what_is_there_and_best_yml_follows(tmp_path: Path) -> None:
    project = Project(tmp_path, UNLUCKY, n_trials=5)
    project.run()
    first, second = ranking(project.study(), 2)
    confirm(project, "--top", "2", "--seeds", "1")
    assert found(project)["winner"] == second.number
    confirm(project, "--top", "2", "--seeds", "3", "--local", "2")
    told = found(project)
    assert (told["trainings"], told["winner"]) == (6, second.number)
    assert [trial["number"] for trial in told["trials"]] == [second.number, first.number]
    text = (project.save_path / "best.yml").read_text()
    assert f"# trial: {second.number}\n" in text
    assert "# confirmed: mean " in text
    assert yaml.safe_load(text)["model"]["x"] == second.params["x"]
    opened = open_study(project.save_path)
    assert (opened.best_trial.number, opened.best_config["model"]["x"]) == (second.number, second.params["x"])
    (project.save_path / "best.yml").unlink()
    assert main(["results", str(project.save_path)]) == 0
    assert (project.save_path / "best.yml").read_text() == text
    assert not (project.save_path / "confirm" / "best.yml").exists()


def test_status_top_and_report_show_what_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, UNLUCKY, n_trials=5)
    project.run()
    confirm(project, "--top", "2", "--seeds", "2")
    winner = found(project)["trials"][0]
    capsys.readouterr()
    assert main(["status", str(project.save_path)]) == 0
    shown = capsys.readouterr().out
    assert f"(trial {winner['number']})" in shown
    assert "confirmed: mean " in shown
    assert "4 of 4 trainings complete" in shown
    assert main(["top", str(project.save_path), "--json"]) == 0
    rows = {row["number"]: row["confirmed"] for row in json.loads(capsys.readouterr().out)}
    assert rows[winner["number"]] == winner
    assert sum(row is not None for row in rows.values()) == 2
    assert main(["top", str(project.save_path)]) == 0
    assert {"mean", "spread", "P(best)"} <= set(capsys.readouterr().out.splitlines()[1].split())
    assert main(["report", str(project.save_path)]) == 0
    page = (project.save_path / "report.html").read_text()
    assert "4 of 4 trainings complete" in page
    assert f"Trial {winner['number']} is the best by its mean." in page
    capsys.readouterr()
    assert main(["status", str(project.save_path / "confirm")]) == 0
    assert "confirms study s" in capsys.readouterr().out


def test_what_breaks_a_constraint_is_not_confirmed(tmp_path: Path) -> None:
    project = Project(tmp_path, UNLUCKY, n_trials=8, constraints="size >= 0.4")
    project.run()
    best = ranking(project.study(), 8)
    assert min(trial.params["x"] for trial in best) >= 0.4
    assert min(trial.params["x"] for trial in project.study().trials) < 0.4
    said = confirm(project, "--top", "8", "--seeds", "1", "--dry-run")
    assert f"only {len(best)} different configurations are complete and keep the constraints" in said.stderr
    assert find_confirmation(project.study()) is None
    confirm(project, "--top", "1", "--seeds", "2")
    assert found(project)["winner"] == best[0].number


def test_a_training_that_failed_is_run_again_when_it_is_asked_for_again(tmp_path: Path) -> None:
    project = Project(tmp_path, FAILING_ONCE, n_trials=2)
    fill_study(project, 3)
    said = confirm(project, "--top", "1", "--seeds", "2", expect=4).stdout
    assert "1 of 2 trainings complete, 1 failed or pruned" in said
    assert "No configuration is proven" in said
    (tmp_path / "mended").touch()
    assert "2 of 2 trainings complete" in confirm(project, "--top", "1", "--seeds", "2").stdout
    assert Counter(trial.state.name for trial in trainings(project)) == {"COMPLETE": 2, "FAIL": 1}
    seeds = [trial.system_attrs[CONFIRMED]["seed"] for trial in trainings(project)]
    assert (len(seeds), len(set(seeds))) == (3, 2)


def test_what_is_changed_in_a_confirmation_holds_when_it_is_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, n_trials=2)
    fill_study(project, 3)
    confirm(project, "--top", "1", "--seeds", "1")
    of = str(project.save_path / "confirm")
    assert main(["change", of, "optuna:n_trials=5", "optuna:enqueue=[{x: 0.5}]", "optuna:trial_timeout=500"]) == 2
    told = capsys.readouterr().err
    assert "optuna: n_trials: cannot be changed: this study is a confirmation" in told
    assert "optuna: enqueue: cannot be changed" in told
    assert f"aimlhpo confirm {project.save_path}` with a larger --top or --seeds" in told
    assert main(["change", of, "optuna:trial_timeout=500"]) == 0
    confirm(project, "--top", "1", "--seeds", "2")
    assert load_target(Path(of)).optuna.trial_timeout == 500
    assert main(["change", of, "optuna:trial_timeout=500"]) == 3
    assert main(["change", of, "optuna:trial_timeout=null"]) == 0
    assert "optuna: trial_timeout 500 -> not set" in capsys.readouterr().out


def test_what_the_objective_asks_for_by_itself_has_the_same_value_again(tmp_path: Path) -> None:
    asking = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                return {"val_loss": trial.suggest_float("own", 0.0, 1.0) + trial.suggest("x")}
    """
    project = Project(tmp_path, asking, n_trials=4)
    project.run()
    confirm(project, "--top", "1", "--seeds", "2")
    (best,) = found(project)["trials"]
    assert best["values"] == [best["searched"]] * 2
    assert found(project)["same"]


def test_a_grid_is_confirmed_like_any_study(tmp_path: Path) -> None:
    parameters = {"model:x": {"type": "multiple", "settings": {"name": "x", "values": [0.1, 0.2, 0.3]}}}
    project = Project(tmp_path, NOISY, n_trials=None, sampler=None, parameters=parameters)
    project.run()
    confirm(project, "--top", "2", "--seeds", "2")
    told = found(project)
    assert [round(trial["mean"], 2) for trial in told["trials"]] == [0.1, 0.2]
    assert len(trainings(project)) == 4


def test_a_seed_in_the_model_configuration_is_fresh_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeded = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                seed = conf["data"]["seed"]
                return {"val_loss": conf["model"]["x"] + seed / 1e12, "same": seed == trial.seed}
    """
    project = Project(tmp_path, seeded, model={"data": {"seed": 1}}, n_trials=2)
    project.run()
    assert (
        "trial.seed, and data:seed in the model configuration" in confirm(project, "--top", "1", "--seeds", "2").stdout
    )
    assert all(record_of(trial)["metrics"]["same"] for trial in trainings(project))
    assert not found(project)["same"]
    first, target = trainings(project)[0], tmp_path / "exported"
    assert main(["export", str(project.save_path / "confirm"), str(target), "--trial", "0"]) == 0
    assert yaml.safe_load((target / "model.yml").read_text())["data"]["seed"] == first.system_attrs[CONFIRMED]["seed"]


def test_what_is_found_later_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, NOISY, n_trials=3)
    study = fill_study(project, 3)
    confirm(project, "--top", "1", "--seeds", "2")
    proven = found(project)["winner"]
    study.enqueue_trial({"x": 0.0})
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0.0, 1.0))
    assert main(["status", str(project.save_path)]) == 0
    shown = capsys.readouterr().out
    assert f"(trial {proven})" in shown
    assert f"found since: val_loss 0 (trial {trial.number}), not confirmed" in shown
    confirm(project, "--top", "1", "--seeds", "2")
    assert found(project)["winner"] == trial.number
    assert len(trainings(project)) == 4
    assert main(["status", str(project.save_path)]) == 0
    assert "found since" not in capsys.readouterr().out


def test_a_copy_of_a_study_is_confirmed_on_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path, NOISY, n_trials=3)
    fill_study(project, 3)
    confirm(project, "--top", "1", "--seeds", "2")
    copy = Project(tmp_path, NOISY, n_trials=3)
    copy.save_path = tmp_path / "copy"
    shutil.copytree(project.save_path, copy.save_path)
    confirm(copy, "--top", "1", "--seeds", "3")
    assert found(copy)["trainings"] == 3
    assert found(project)["trainings"] == 2


def test_its_table_says_what_was_trained_with_which_seed(tmp_path: Path) -> None:
    project = Project(tmp_path, NOISY, n_trials=3)
    fill_study(project, 3)
    confirm(project, "--top", "2", "--seeds", "2")
    with (project.save_path / "confirm" / "results.csv").open() as file:
        rows = [(int(row["confirms"]), int(row["seed"])) for row in csv.DictReader(file)]
    marks = [trial.system_attrs[CONFIRMED] for trial in trainings(project)]
    assert rows == [(mark["trial"], mark["seed"]) for mark in marks]


def test_several_metrics_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, metric=["a", "b"], direction=["minimize", "minimize"])
    fill_study(project, 0)
    assert main(["confirm", str(project.save_path)]) == 2
    said = capsys.readouterr().err
    assert "the study has 2 metrics" in said
    assert "aimlhpo export" in said


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 0)
    assert main(["confirm", str(project.save_path)]) == 2
    assert "no trial is complete" in capsys.readouterr().err
    assert main(["confirm", str(project.save_path), "--seeds", "0"]) == 2
    assert "--seeds: '0' is not a number of seeds" in capsys.readouterr().err
