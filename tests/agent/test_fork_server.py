"""The objective is imported once, in a process of its own, for the check and for all workers, where that is safe."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.errors import ExitCode, ObjectiveError
from tests.faults.crew import descendants
from tests.project import Project
from tests.waiting import wait_until

IMPORTED = Path(__file__).parent / "objectives" / "imported.py"
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


def verify(file: Path) -> None:
    with ForkServer() as fork_server:
        fork_server.load(str(file), {})
        fork_server.verify()


def test_a_good_file_passes_and_its_output_is_not_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verify(objective(tmp_path, GOOD + "print('hello')\n"))
    assert capfd.readouterr().out == ""


def test_helper_modules_beside_it_import(tmp_path: Path) -> None:
    (tmp_path / "my_helper.py").write_text("x = 1\n")
    verify(objective(tmp_path, "import my_helper\n" + GOOD))


def test_the_traceback_of_the_file_comes_last(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError) as caught:
        verify(objective(tmp_path, GOOD + "import not_there_at_all\n"))
    lines = str(caught.value).splitlines()
    assert lines[-1] == "ModuleNotFoundError: No module named 'not_there_at_all'"
    assert "objective.py" in lines[0]
    assert not any("fork_server" in line for line in lines)


def test_a_long_traceback_keeps_its_end(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match="the end$"):
        verify(objective(tmp_path, "raise ValueError('\u00e4' * 300_000 + 'the end')\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no class Objective"),
        ("class Objective: pass", "not a subclass"),
        ("raise SystemExit(0)", "exits with code 0"),
        (
            "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('data')\nparser.parse_args()",
            "line 4 exits with code 2 (.|\n)*the following arguments are required: data",
        ),
        ("import os\nprint('last words', flush=True)\nos._exit(0)", "last words"),
        ("import os\nos._exit(7)", "exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_bad_file_is_an_objective_error(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match=told):
        verify(objective(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match="nowhere.py"):
        verify(tmp_path / "nowhere.py")


def test_a_process_that_is_killed_before_it_imports_is_an_objective_error(tmp_path: Path) -> None:
    with ForkServer() as fork_server:
        fork_server._process.send_signal(signal.SIGSTOP)
        fork_server.load(str(objective(tmp_path, GOOD)), {})
        fork_server._process.kill()
        with pytest.raises(ObjectiveError, match="was killed by SIGKILL while importing it"):
            fork_server.verify()


def test_output_that_cannot_be_written_is_dropped(tmp_path: Path) -> None:
    with ForkServer() as fork_server:
        fork_server.load(str(objective(tmp_path, GOOD + "print('hello', flush=True)\n")), {})
        fork_server.verify()
        fork_server.write_log(Path("/dev/full"))


def test_no_descriptor_and_no_process_stays(tmp_path: Path) -> None:
    file = objective(tmp_path, GOOD)
    gc.collect()  # what other tests have left to the collector
    before, children = set(os.listdir("/proc/self/fd")), descendants(os.getpid())
    verify(file)
    assert set(os.listdir("/proc/self/fd")) <= before
    assert set(descendants(os.getpid())) <= set(children)  # what another test has left may end meanwhile


def project(folder: Path, *, workers: int = 3, n: int = 3, **deeds: str) -> Project:
    """A study whose objective does what `at_import` and `in_trial` name, in the words of objectives/imported.py."""
    return Project(folder, IMPORTED, model={"workers": workers, **deeds}, n_trials=n)


def imports(made: Project) -> list[str]:
    """The processes that have imported the objective, by their numbers."""
    return (made.folder / "imports").read_text().split()


AGENT = """
import sys
from pathlib import Path
from aimlhpo.config.load import load_target
from aimlhpo.cli.live_view import make_view
from aimlhpo.launch.local import run_local

config = load_target(Path(sys.argv[1]))
run_local(config, make_view(config), int(sys.argv[2]))
"""


def run_agent(made: Project, workers: int) -> str:
    """Run an agent without a check before it, as a SLURM job does; returns the error that it ends with."""
    made.run("--create-only")
    (made.folder / "imports").unlink()
    command = [sys.executable, "-c", AGENT, str(made.save_path), str(workers)]
    done = subprocess.run(command, cwd=made.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode, done.stdout
    return done.stderr


def import_log(made: Project) -> str:
    return "".join(file.read_text() for file in (made.save_path / "logs").glob("import-*.log"))


@pytest.mark.parametrize("workers", [1, 3])
def test_one_import_for_the_check_and_all_workers(tmp_path: Path, workers: int) -> None:
    made = project(tmp_path, workers=workers)
    made.run("--local", str(workers))
    seen = [record["metrics"] for record in made.records()]
    assert len(imports(made)) == 1
    assert len({m["pid"] for m in seen}) == workers
    assert len({m["parent"] for m in seen}) == 1
    assert all(m["group"] == m["pid"] for m in seen)
    assert len({m["drawn"] for m in seen}) == len({m["val_loss"] for m in seen}) == 3
    assert {m["threads"] for m in seen} == {str(max(1, len(os.sched_getaffinity(0)) // workers))}
    assert not list((made.save_path / "logs").glob("import-*")), "an empty log says nothing"


@pytest.mark.parametrize(
    ("at_import", "why"),
    [
        ("start a thread", "started threads"),
        ("open a file", "left open"),
        ("start a process", "started processes"),
    ],
)
def test_import_that_cannot_be_forked_is_done_by_each_worker(tmp_path: Path, at_import: str, why: str) -> None:
    made = project(tmp_path, at_import=at_import)
    made.run("--local", "3")
    assert len(imports(made)) == 3
    assert {int(pid) for pid in imports(made)} == {record["metrics"]["pid"] for record in made.records()}
    assert why in import_log(made)


def test_causes_of_death_are_told_of_forked_workers(tmp_path: Path) -> None:
    made = project(tmp_path, in_trial="die", workers=1)
    made.run("--local", "2")
    assert [record["cause"] for record in made.records()[:2]] == ["exit code 7", "killed by signal 11"]
    assert made.states() == {"COMPLETE": 3, "FAIL": 2}
    assert len(imports(made)) == 1


def test_killed_fork_server_costs_nothing(tmp_path: Path) -> None:
    made = project(tmp_path, in_trial="kill the fork server", workers=1, n=4)
    made.run("--local", "2")
    assert made.states() == {"COMPLETE": 4, "FAIL": 1}
    assert len(imports(made)) == 2, "the worker that replaces a dead one imports the objective itself"


def test_import_that_fails_in_an_agent_is_told_once(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="fail after the check")
    stderr = run_agent(made, 3)
    assert "ObjectiveError" in stderr
    assert stderr.count("importing it failed") == stderr.count("ZeroDivisionError") == 1
    assert len(imports(made)) == 1


def test_agent_whose_fork_server_dies_of_the_import_tells_of_it(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="exit after the check")
    stderr = run_agent(made, 2)
    assert "StudyFailed" in stderr
    assert "ends before it is ready (exit code 3):\nouch" in stderr


def test_import_that_fails_in_a_run_is_told_by_the_check(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="fail")
    failed = made.run("--local", "3", expect=ExitCode.CONFIG)
    assert failed.stderr.count("importing it failed") == failed.stderr.count("ZeroDivisionError") == 1
    assert not made.save_path.exists()


def test_forked_workers_end_with_their_agent(tmp_path: Path) -> None:
    made = project(tmp_path, in_trial="never end", workers=2)
    agent = made.start("--local", "2")
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "two trials to begin", 120)
    family = descendants(agent.pid)
    assert set(map(int, pids.read_text().split())) < set(family)
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait(60)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the workers' end")


def test_the_import_sees_the_first_slots_devices(tmp_path: Path) -> None:
    made = project(tmp_path, at_import="note the devices", workers=1, n=1)
    gpus = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    made.run("--local", "2", "--gpu", "1", env={**gpus, "CUDA_VISIBLE_DEVICES": "5,GPU-7"})
    assert (tmp_path / "seen").read_text() == f"5 {max(1, len(os.sched_getaffinity(0)) // 2)}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_import_ends_with_the_command_that_waits_for_it(tmp_path: Path, number: signal.Signals) -> None:
    made = project(tmp_path, at_import="sleep")
    command = made.start()
    wait_until(lambda: (tmp_path / "imports").exists() and bool(imports(made)), "the import", 120)
    command.send_signal(number)
    command.communicate(timeout=60)
    wait_until(lambda: not Path(f"/proc/{imports(made)[0]}").exists(), "the end of the import")
    assert not made.save_path.exists()
