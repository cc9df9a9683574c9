"""What returns when it was told to stop has not ended; and a trial leaves nothing behind for the next one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.errors import ExitCode
from tests.command_project import CommandProject
from tests.project import Project
from tests.waiting import wait_until

RETURNS_EARLY = """
    import asyncio, os, signal, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    HERE = Path(__file__).parent

    class Objective(BaseObjective):
        def train(self, trial, conf):
            self.stopped = False
            (HERE / f"began-{trial.number}-{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
            if trial.number == 1:  # an event loop takes signals in a way of its own
                asyncio.run(self.until_told())
            else:
                signal.signal(signal.SIGTERM, lambda *given: self.stop())
                while not self.stopped and not (HERE / "go").exists():
                    time.sleep(0.02)
            return {"val_loss": 1.0, "stopped": self.stopped}

        def stop(self):
            self.stopped = True

        async def until_told(self):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop)
            while not self.stopped and not (HERE / "go").exists():
                await asyncio.sleep(0.02)
"""
PROGRAM = """
    import json, os, signal, time
    stopped = []
    signal.signal(signal.SIGTERM, lambda *given: stopped.append(1))
    print(os.getpid(), file=open(f"began-{os.environ['AIMLHPO_TRIAL']}-0", "w"), flush=True)
    while not stopped and not os.path.exists("go"):
        time.sleep(0.02)
    print(json.dumps({"val_loss": 1.0, "stopped": bool(stopped)}))
"""


def make(folder: Path, kind: str) -> Project:
    if kind == "command":
        return CommandProject(folder, PROGRAM, n_trials=2)
    slurm: dict[str, Any] | None = {"gpus_per_worker": 2} if kind == "ranks" else None
    return Project(folder, RETURNS_EARLY, slurm, n_trials=2)


def begun(folder: Path) -> list[int]:
    """The processes that have begun to train."""
    return [int(text) for path in folder.glob("began-*") if (text := path.read_text())]


@pytest.mark.parametrize(("kind", "processes"), [("worker", 1), ("ranks", 2), ("command", 1)])
def test_training_that_returns_when_told_to_stop_goes_on_later(tmp_path: Path, kind: str, processes: int) -> None:
    project = make(tmp_path, kind)
    study = project.start("--local", "2")
    wait_until(lambda: len(begun(tmp_path)) == 2 * processes, "both trials to begin")
    for group in set(map(os.getpgid, begun(tmp_path))):
        os.killpg(group, signal.SIGTERM)  # SLURM signals all processes of a job, and the agent may be the last
    study.send_signal(signal.SIGTERM)
    study.communicate(timeout=60)
    assert study.returncode == ExitCode.INTERRUPTED
    assert project.states() == {"WAITING": 2}
    (tmp_path / "go").touch()
    project.run("--local", "2", "-r", "1")
    assert project.states() == {"COMPLETE": 2}
    assert [(record["attempts"], record["metrics"]["stopped"]) for record in project.records()] == [(2, False)] * 2


SIGNALS_ITSELF = """
    import os, signal, tempfile
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            rows = len(open("data.csv").readlines())
            os.chdir(tempfile.mkdtemp(dir=os.getcwd()))
            (self.checkpoint_dir(trial) / "state").write_text("x")
            came = []
            signal.signal(signal.SIGTERM, lambda *given: came.append(1))
            os.kill(os.getpid(), signal.SIGTERM)
            print(f"trial {trial.number} got {came}")
            return {"val_loss": 1.0, "rows": rows, "signals": len(came)}
"""


def test_next_trial_of_a_worker_starts_where_the_first_one_did(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n2\n")
    project = Project(tmp_path, SIGNALS_ITSELF, n_trials=2)
    project.run("-s", "run")
    assert project.states() == {"COMPLETE": 2}, "a SIGTERM of the objective's own is its own business"
    assert [(record["metrics"]["rows"], record["metrics"]["signals"]) for record in project.records()] == [(2, 1)] * 2
    assert len({record["worker"] for record in project.records()}) == 1
    assert all((tmp_path / "run" / record["log"]).is_file() for record in project.records())
    assert len(list((tmp_path / "run" / "checkpoints").glob("*/state"))) == 2


CLOSES_ITS_OUTPUT = """
    import os, socket, sys, threading, time
    from aimlhpo import BaseObjective

    def close_output():
        os.close(1)
        os.close(2)

    def report_in_child(trial):
        sys.stdout.close()
        close_output()
        if os.fork() == 0:
            trial.report(1.0, 0)
            os._exit(0)
        os.wait()

    def leave_a_server(trial):
        server = socket.create_server(("127.0.0.1", 0))
        close_output()
        threading.Thread(target=server.accept, daemon=True).start()
        time.sleep(0.2)  # it takes the place at once

    def close_all_and_leave_a_server(trial):
        sys.stdout.close()
        leave_a_server(trial)

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 0:
                DEED(trial)
            else:
                print(f"trial {trial.number} prints")
            return {"val_loss": 1.0}
"""


@pytest.mark.parametrize("deed", ["report_in_child", "leave_a_server", "close_all_and_leave_a_server"])
def test_trial_that_closes_its_output_leaves_the_next_one_its_own(tmp_path: Path, deed: str) -> None:
    """Also where something else has been opened in its place meanwhile."""
    objective = CLOSES_ITS_OUTPUT.replace("DEED", deed)
    project = Project(tmp_path, objective, n_trials=2)
    project.run("--local", "1")
    assert project.states() == {"COMPLETE": 2}
    (log,) = (project.save_path / "logs").glob("worker-*")
    assert "trial 1 prints" in log.read_text().splitlines()
