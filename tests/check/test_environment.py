"""An objective file is tried out in a process of its own, whatever it does there."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from aimlhpo.check.environment import probe_objective
from aimlhpo.errors import ObjectiveError

GOOD = """
from aimlhpo import BaseObjective
class Objective(BaseObjective):
    def train(self, trial, conf):
        return {"val_loss": 1.0}
"""


def objective(directory: Path, text: str) -> Path:
    file = directory / "objective.py"
    file.write_text(text)
    return file


def test_a_good_file_passes_and_its_output_is_not_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    probe_objective(objective(tmp_path, GOOD + "print('hello')\n"))
    assert capfd.readouterr().out == ""


def test_helper_modules_beside_it_import(tmp_path: Path) -> None:
    (tmp_path / "my_helper.py").write_text("x = 1\n")
    probe_objective(objective(tmp_path, "import my_helper\n" + GOOD))


def test_the_traceback_of_the_file_comes_last(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError) as caught:
        probe_objective(objective(tmp_path, GOOD + "import not_there_at_all\n"))
    lines = str(caught.value).splitlines()
    assert lines[-1] == "ModuleNotFoundError: No module named 'not_there_at_all'"
    assert "objective.py" in lines[0]
    assert not any("objective_probe" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no class Objective"),
        ("class Objective: pass", "not a subclass"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os\nprint('last words', flush=True)\nos._exit(0)", "last words"),
        ("import os\nos._exit(7)", "exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_bad_file_is_an_objective_error(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match=told):
        probe_objective(objective(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match="nowhere.py"):
        probe_objective(tmp_path / "nowhere.py")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    file = objective(tmp_path, GOOD)
    gc.collect()  # what other tests have left to the collector
    before = set(os.listdir("/proc/self/fd"))
    probe_objective(file)
    assert set(os.listdir("/proc/self/fd")) <= before
