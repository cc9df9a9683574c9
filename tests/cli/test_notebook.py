"""`aimlhpo.optimize` in notebooks, scripts and threads: the same study as the command runs, and nothing left behind."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import numpy as np
import optuna
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from optuna.trial import TrialState

import aimlhpo
from aimlhpo.cli.main import main
from aimlhpo.errors import AimlhpoError, ConfigError, StudyError
from tests.project import Project
from tests.test_docs import ROOT, read_snippets
from tests.waiting import wait_until

PARAMETERS = {"x": {"type": "float", "settings": {"low": 0.0, "high": 1.0}}}
OBJECTIVE = """
import aimlhpo

class Objective(aimlhpo.BaseObjective):
    def train(self, trial, conf):
        print("in a worker")
        return {"val_loss": conf["x"], "size": conf["size"]}
"""
HANGING = """
import pathlib, time
import aimlhpo

class Objective(aimlhpo.BaseObjective):
    def train(self, trial, conf):
        here = pathlib.Path(__file__).parent
        (here / "trains").touch()
        while not (here / "goes on").exists():
            time.sleep(0.05)
        return {"val_loss": conf["x"]}
"""
CALL = """
import aimlhpo

def run(**keys):
    return aimlhpo.optimize(
        objective="objective.py", model={"x": 0.5, "size": 3}, metric="val_loss", n_trials=2, save_path="run",
        parameters={"x": {"type": "float", "settings": {"low": 0.0, "high": 1.0}}}, **keys,
    )
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own directory, with Jupyter's files in it, too."""
    gc.unfreeze()  # what another test in this process has left: as its objects end, their number would change
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    return tmp_path


def optimize(**keys: Any) -> Any:
    given = {"objective": "objective.py", "metric": "val_loss", "n_trials": 3, "save_path": "runs/first"}
    return aimlhpo.optimize(model={"x": 0.5, "size": np.int64(3)}, **{**given, "parameters": PARAMETERS, **keys})


def states_and_settings() -> list[Any]:
    """What a call must leave as it was."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    settings = optuna.logging.get_verbosity(), gc.get_freeze_count(), sys.getswitchinterval(), os.getcwd(), sys.path[:]
    return [*map(signal.getsignal, numbers), *settings]


def test_a_study_runs_from_dicts_and_is_the_one_that_the_storage_holds(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(logging.INFO)
    before = states_and_settings()
    study = optimize(workers=2)
    assert states_and_settings() == before
    printed, errors = capfd.readouterr()
    assert "3/3 trials done" in printed
    assert "study first ended by n_trials: 3 of 3 trials are finished" in printed
    assert "in a worker" not in printed
    assert errors == ""
    opened = aimlhpo.open_study(here / "runs/first")
    assert list(study.trials["val_loss"]) == list(opened.trials["val_loss"]) == list(study.trials["params_x"])
    assert study.best_config == {"x": study.best_trial.value, "size": 3}
    assert {trial.user_attrs["size"] for trial in study.study.trials} == {3}
    assert (here / "runs/first/results.csv").exists()


def test_it_goes_on_with_files_and_keywords_before_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=2)
    study = aimlhpo.optimize(str(project.hyperparameters), project.model, quiet=True)
    assert list(study.trials["state"]) == ["COMPLETE"] * 2
    again = aimlhpo.optimize(project.hyperparameters, project.model, n_trials=4, reload=True, quiet=True)
    assert list(again.trials["state"]) == ["COMPLETE"] * 4
    assert capfd.readouterr() == ("", "")
    ended = aimlhpo.optimize(project.hyperparameters, project.model, n_trials=4, reload=True)
    assert capfd.readouterr().out.startswith("study s ended by n_trials: 4 of 4 trials are finished")
    assert len(ended.trials) == 4
    with pytest.raises(ConfigError, match="reload: is 0, and study 's' already has 4 trials"):
        aimlhpo.optimize(project.hyperparameters, project.model)


def test_a_study_is_named_after_the_directory_that_it_lies_in(here: Path) -> None:
    assert optimize(save_path=".", n_trials=1, quiet=True).study.study_name == here.name


def test_its_end_is_told_by_the_budget_that_it_was_given_meanwhile(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "objective.py").write_text(HANGING)
    thread = threading.Thread(target=lambda: optimize(n_trials=9, workers=1), daemon=True)
    thread.start()
    wait_until((here / "trains").exists, 60)
    assert main(["change", str(here / "runs/first"), "optuna:n_trials=2"]) == 0
    (here / "goes on").touch()
    thread.join(60)
    assert not thread.is_alive()
    assert "study first ended by n_trials: 2 of 2 trials are finished" in capfd.readouterr().out


def test_it_runs_in_any_thread(here: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(optimize(quiet=True)))
    thread.start()
    thread.join()
    assert len(found[0].trials) == 3


class Objective(aimlhpo.BaseObjective):
    """Found in this file by workers, as that of any module."""

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        return {"val_loss": conf["x"]}


class Named(aimlhpo.BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        return {"val_loss": conf["x"]}


def test_the_class_of_a_module_stands_for_its_file() -> None:
    study = optimize(objective=Objective, quiet=True)
    assert len(study.trials) == 3
    assert study.study.trials_dataframe()["user_attrs_val_loss"].notna().all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"objective": Named},
            "has class Named, and workers look for Objective\n    legal: Objective = Named at the top",
        ),
        ({"objective": Objective(None, {}, "val_loss")}, "is of type Objective"),
        ({"objective": lambda trial: 1.0}, "is of type function"),
        ({"objective": type("Objective", (Objective,), {"__module__": "__main__"})}, "Objective"),
        ({"objective": "gone.py"}, "no such file: "),
        ({"objective": None}, "optuna: objective: is missing"),
        ({"n_trails": 3}, "did you mean: n_trials"),
        ({"parameters": {"model:y": PARAMETERS["x"]}}, "optuna: parameters: model:y: not in the model YAML"),
        ({"parameters": {"x": {"type": "categorical", "settings": {"choices": [1, {1, 2}]}}}}, "choices: 1: "),
        ({"n_trials": -1, "direction": "down"}, "optuna: direction"),
        ({"workers": 0}, "workers"),
    ],
)
def test_mistakes_are_errors_of_the_package_and_run_nothing(keys: dict[str, Any], said: str, here: Path) -> None:
    before = states_and_settings()
    with pytest.raises(AimlhpoError) as refused:
        optimize(**keys)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) < 24
    assert states_and_settings() == before
    assert not (here / "runs/first/results.csv").exists()


def test_a_study_that_is_not_there_is_told() -> None:
    with pytest.raises((ConfigError, StudyError), match="there is no study 'first'"):
        optimize(reload=True)


def test_a_script_that_is_not_guarded_says_so_and_runs_nothing(here: Path) -> None:
    script = next(s.text for s in read_snippets(ROOT / "docs/python.md") if s.file == "tune.py")
    (here / "tune.py").write_text(script.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run([sys.executable, "tune.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith('Put what is for the script alone under: if __name__ == "__main__":')
    assert not (here / "runs/script/results.csv").exists()


def test_ctrl_c_gives_back_what_runs_and_the_same_call_goes_on(here: Path) -> None:
    (here / "objective.py").write_text(HANGING)
    (here / "script.py").write_text(f"""{CALL}
import signal
try:
    run(workers=1)
except aimlhpo.errors.Interrupted as error:
    print("interrupted:", error)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
open("goes on", "w").close()
print(len(run(workers=1, reload=True, quiet=True).trials), "trials")
""")
    with subprocess.Popen([sys.executable, "script.py"], stdout=subprocess.PIPE, text=True) as process:
        wait_until((here / "trains").exists, "a trial that trains")
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "interrupted: stopped by user: 0 trials are finished, what was running was given back." in printed
    assert printed.splitlines()[-2:] == ["True", "2 trials"]


# --- notebooks ---


@pytest.fixture
def kernel(here: Path) -> Iterator[tuple[Any, Any]]:
    """A kernel as a notebook has it, and its client."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(here))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def answer_to(client: Any, asked: str) -> dict[str, Any]:
    """How a cell has ended."""
    while True:
        message: dict[str, Any] = client.get_shell_msg(timeout=120)
        if message["parent_header"].get("msg_id") == asked:
            return dict(message["content"])


def test_the_interrupt_button_ends_a_study_as_ctrl_c_does(here: Path, kernel: tuple[Any, Any]) -> None:
    (here / "objective.py").write_text(HANGING)
    manager, client = kernel
    asked = client.execute(f"{CALL}\nrun()")
    wait_until((here / "trains").exists, "a trial that trains")
    manager.interrupt_kernel()
    answer = answer_to(client, asked)
    assert (answer["status"], answer["ename"]) == ("error", "Interrupted")
    study = aimlhpo.open_study(here / "run")
    assert {trial.state for trial in study.study.trials} == {TrialState.WAITING}
    (here / "goes on").touch()
    asked = client.execute("study = run(reload=True)\nassert len(study.trials) == 2")
    assert answer_to(client, asked)["status"] == "ok"


def test_a_kernel_that_is_shut_down_gives_back_what_runs(here: Path, kernel: tuple[Any, Any]) -> None:
    (here / "objective.py").write_text(HANGING)
    manager, client = kernel
    client.execute(f"{CALL}\nrun()")
    wait_until((here / "trains").exists, "a trial that trains")
    manager.shutdown_wait_time = 120.0  # it is killed after that
    manager.shutdown_kernel(now=False)
    study = aimlhpo.open_study(here / "run").study
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}


def test_a_class_of_a_cell_is_refused_with_the_way_to_do_it(kernel: tuple[Any, Any]) -> None:
    _, client = kernel
    asked = client.execute(f"{OBJECTIVE}\naimlhpo.optimize(objective=Objective, save_path='run')")
    answer = answer_to(client, asked)
    assert answer["ename"] == "ConfigError"
    assert "put `%%writefile objective.py` into the first line of the cell" in answer["evalue"]


def test_the_page_runs_as_a_notebook(here: Path) -> None:
    """Its snippets, one cell each: no error, nothing in red, the study as HTML, the frame, and the figure."""
    snippets = [s for s in read_snippets(ROOT / "docs/python.md") if s.language == "python" and s.file != "tune.py"]
    cells = [s.text.replace("# file:", "%%writefile") for s in snippets]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": here}}).execute()
    outputs = {cell.source.splitlines()[0]: cell.outputs for cell in notebook.cells}
    every = [output for found in outputs.values() for output in found]
    assert [output for output in every if output.output_type == "error" or output.get("name") == "stderr"] == []
    printed = "".join(output.text for output in outputs["import aimlhpo"])
    assert "8/8 trials done" in printed
    assert "study notebook ended by n_trials" in printed
    (shown,) = outputs["study"]
    page = shown.data["text/html"]
    assert "<b>notebook</b>: 8 of 8 trials done" in page
    assert "<td>learning_rate</td><td>0.5</td>" in page
    ElementTree.fromstring(f"<div>{page}</div>")  # every element is closed
    (figure,) = outputs["study.plot_history()"]
    assert figure.data["application/vnd.plotly.v1+json"]["data"]
    (frame,) = outputs["study.best_config, study.trials"]
    assert "params_learning_rate" in frame.data["text/plain"]
