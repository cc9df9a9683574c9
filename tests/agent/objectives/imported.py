"""Notes in the file `imports` which processes import it; each trial waits until `workers` processes have begun one.

The model configuration may ask for more: `at_import` names what importing it does, `in_trial` what trials do first.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import yaml

from aimlhpo import BaseObjective

HERE = Path(__file__).parent
KEPT: list[Any] = []


def note_pid() -> None:
    with open(HERE / "pids", "a") as file:
        print(os.getpid(), file=file)


class Objective(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        if conf.get("in_trial"):
            IN_TRIAL[conf["in_trial"]](trial)
        note_pid()
        while len(set((HERE / "pids").read_text().split())) < conf["workers"]:
            time.sleep(0.02)
        return {
            "val_loss": random.random(),
            "drawn": numpy.random.random(),
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "parent": os.getppid(),
            "threads": os.environ["OMP_NUM_THREADS"],
        }


# --- what importing it does ---


def divide_by_zero() -> float:
    return 1 / 0


def exit_with_words() -> None:
    print("ouch")
    os._exit(3)


def not_at_first(deed: Callable[[], Any]) -> None:
    """The first import is that of the check."""
    if (HERE / "checked").exists():
        deed()
    (HERE / "checked").touch()


def note_devices() -> None:
    (HERE / "seen").write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.environ['OMP_NUM_THREADS']}")


AT_IMPORT: dict[str, Callable[[], Any]] = {
    "start a thread": lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "open a file": lambda: KEPT.append(os.open(HERE / "imports", os.O_RDONLY)),
    "start a process": lambda: KEPT.append(subprocess.Popen(["sleep", "600"])),
    "fail": divide_by_zero,
    "fail after the check": lambda: not_at_first(divide_by_zero),
    "exit after the check": lambda: not_at_first(exit_with_words),
    "note the devices": note_devices,
    "sleep": lambda: time.sleep(600),
}


# --- what trials do first ---


def die(trial: Any) -> None:
    if trial.number == 0:
        os._exit(7)
    if trial.number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)


def kill_the_fork_server(trial: Any) -> None:
    """Trial 0 does, and trial 1 then dies; no trial goes on before."""
    fork_server = int((HERE / "imports").read_text().split()[0])
    (HERE / f"worker-{os.getpid()}").touch()
    while len(list(HERE.glob("worker-*"))) < 2:  # both were forked of it
        time.sleep(0.02)
    if trial.number == 0:
        os.kill(fork_server, signal.SIGKILL)
    while lives(fork_server):
        time.sleep(0.02)
    if trial.number == 1:
        os._exit(7)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def never_end(trial: Any) -> None:
    note_pid()
    time.sleep(600)


IN_TRIAL: dict[str, Callable[[Any], None]] = {
    "die": die,
    "kill the fork server": kill_the_fork_server,
    "never end": never_end,
}


with open(HERE / "imports", "a") as file:
    file.write(f"{os.getpid()}\n")
at_import = yaml.safe_load((HERE / "model.yml").read_text()).get("at_import")
if at_import:
    AT_IMPORT[at_import]()
