"""Workers of one agent are forked of one import of the objective, where that is safe."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from aimlhpo.errors import ExitCode
from tests.faults.crew import descendants
from tests.project import Project
from tests.waiting import wait_until

IMPORTS = """
    import os, random, signal, sys, threading, time
    from pathlib import Path
    import numpy
    from aimlhpo import BaseObjective

    HERE = Path(__file__).parent
    with open(HERE / "imports", "a") as file:
        file.write(f"{os.getpid()}\\n")
    AT_IMPORT

    class Objective(BaseObjective):
        def train(self, trial, conf):
            IN_TRIAL
            while len(set((HERE / "pids").read_text().split())) < WORKERS:
                time.sleep(0.02)
            return {"val_loss": random.random(), "drawn": numpy.random.random(), "pid": os.getpid(),
                    "group": os.getpgid(0), "parent": os.getppid(), "threads": os.environ["OMP_NUM_THREADS"]}
"""
NOTE_PID = 'print(os.getpid(), file=open(HERE / "pids", "a"))'


def project(
    folder: Path, *, at_import: str = "pass", in_trial: str = NOTE_PID, workers: int = 3, n: int = 3
) -> Project:
    text = IMPORTS.replace("AT_IMPORT", at_import).replace("IN_TRIAL", in_trial).replace("WORKERS", str(workers))
    return Project(folder, text, n_trials=n)


def imports(made: Project) -> list[str]:
    """The processes that have imported the objective since it was checked, by their numbers."""
    return (made.folder / "imports").read_text().split()[1:]


def import_log(made: Project) -> str:
    return "".join(file.read_text() for file in (made.save_path / "logs").glob("import-*.log"))


def test_three_workers_and_one_import(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.run("--local", "3")
    seen = [record["metrics"] for record in made.records()]
    assert len(imports(made)) == 1
    assert len({m["pid"] for m in seen}) == 3
    assert len({m["parent"] for m in seen}) == 1
    assert all(m["group"] == m["pid"] for m in seen)
    assert len({m["drawn"] for m in seen}) == len({m["val_loss"] for m in seen}) == 3
    assert {m["threads"] for m in seen} == {str(max(1, len(os.sched_getaffinity(0)) // 3))}
    assert not list((made.save_path / "logs").glob("import-*")), "an empty log says nothing"


@pytest.mark.parametrize(
    ("at_import", "why"),
    [
        ("threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", "started threads"),
        ("FILE = open(HERE / 'imports')", "left open"),
        ("import subprocess; CHILD = subprocess.Popen(['sleep', '600'])", "started processes"),
    ],
)
def test_import_that_cannot_be_forked_is_done_by_each_worker(tmp_path: Path, at_import: str, why: str) -> None:
    made = project(tmp_path, at_import=f"if len(HERE.joinpath('imports').read_text().split()) > 1: {at_import}")
    made.run("--local", "3")
    assert len(imports(made)) == 3
    assert {int(pid) for pid in imports(made)} == {record["metrics"]["pid"] for record in made.records()}
    assert why in import_log(made)


def test_causes_of_death_are_told_of_forked_workers(tmp_path: Path) -> None:
    deaths = "if trial.number == 0: os._exit(7)\n            if trial.number == 1: os.kill(os.getpid(), signal.SIGSEGV)"
    made = project(tmp_path, in_trial=f"{deaths}\n            {NOTE_PID}", workers=1)
    made.run("--local", "2")
    assert [record["cause"] for record in made.records()[:2]] == ["exit code 7", "killed by signal 11"]
    assert made.states() == {"COMPLETE": 3, "FAIL": 2}
    assert len(imports(made)) == 1


def test_killed_template_costs_nothing(tmp_path: Path) -> None:
    end_it = """
            template = int((HERE / "imports").read_text().split()[1])
            (HERE / f"worker-{os.getpid()}").touch()
            while len(list(HERE.glob("worker-*"))) < 2:  # both were forked of it
                time.sleep(0.02)
            if trial.number == 0:
                os.kill(template, signal.SIGKILL)
            while lives(template):
                time.sleep(0.02)
            if trial.number == 1:
                os._exit(7)"""
    lives = """
    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False"""
    made = project(tmp_path, at_import=lives, in_trial=f"{end_it}\n            {NOTE_PID}", workers=1, n=4)
    made.run("--local", "2")
    assert made.states() == {"COMPLETE": 4, "FAIL": 1}
    assert len(imports(made)) == 2, "the worker that replaces a dead one imports the objective itself"


def test_import_that_fails_in_the_template_is_told_once(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="if len((HERE / 'imports').read_text().split()) > 1: 1 / 0")
    failed = made.run("--local", "3", expect=ExitCode.CONFIG)
    assert failed.stderr.count("importing it failed") == failed.stderr.count("ZeroDivisionError") == 1
    assert len(imports(made)) == 1


def test_template_that_dies_of_its_import_is_told_of(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="if len((HERE / 'imports').read_text().split()) > 1: print('ouch'); os._exit(3)")
    failed = made.run("--local", "2", expect=ExitCode.STUDY_FAILED)
    assert "ends before it is ready (exit code 3):\nouch" in failed.stderr


def test_forked_workers_end_with_their_agent(tmp_path: Path) -> None:
    made = project(tmp_path, in_trial=f"{NOTE_PID}\n            time.sleep(600)", workers=2)
    agent = made.start("--local", "2")
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "two trials to begin", 120)
    family = descendants(agent.pid)
    assert set(map(int, pids.read_text().split())) < set(family)
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait(60)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the workers' end")
