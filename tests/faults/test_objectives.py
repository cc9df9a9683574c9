"""Objectives that do all that an objective should not: each costs its own trial, with its cause, and no slot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

from tests.project import Project

pytestmark = pytest.mark.faults

OBJECTIVE = """
import ctypes, os, resource, signal, subprocess, sys, threading, time
import numpy
from aimlhpo import BaseObjective

class Odd:
    def __repr__(self): raise RuntimeError("no repr")

class Unsayable(Exception):
    def __str__(self): raise RuntimeError("no str")

class Objective(BaseObjective):
    def train(self, trial, conf):
        return globals().get(f"trial_{trial.number}", fine)(trial, conf)

def fine(trial, conf):
    return {"val_loss": 1.0}

"""
# What the objective does in one trial, and how the cause of its failure begins; None: it completes.
DEEDS: list[tuple[str, str | None]] = [
    ("return None", "bad value"),
    ("return {'val_loss': float('nan')}", "nan"),
    ("return {'val_loss': float('inf')}", "bad value"),
    ("return {'val_loss': '0.5'}", "bad value"),
    ("return {'val_loss': 'x'}", "bad value"),
    ("return {'loss': 1.0}", "missing metric"),
    ("return {'val_loss': 1j}", "bad value"),
    ("return {'val_loss': True}", "bad value"),
    ("return {'val_loss': numpy.float32(1.0)}", None),
    ("sys.exit(3)", "exception: SystemExit"),
    ("return [1.0, 2.0]", "bad value"),
    ("return {'val_loss': -numpy.inf}", "bad value"),
    ("return {'val_loss': numpy.array([1.0, 2.0])}", "bad value"),
    ("return numpy.float64(1.0)", None),
    ("return {'val_loss': 1.0, 'odd': Odd(), 3: lambda: 0, 'text': '\\ud800\\x00', 'huge': 10 ** 400}", None),
    ("return {'val_loss': Odd()}", "bad value"),
    ("raise Unsayable", "exception: Unsayable"),
    ("raise ValueError('\\ud800\\x00' + 'long ' * 100_000)", "exception: ValueError"),
    ("raise KeyboardInterrupt", "exception: KeyboardInterrupt"),
    ("raise GeneratorExit", "exception: GeneratorExit"),
    ("def deeper(): deeper()\ndeeper()", "exception: RecursionError"),
    (
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))\nreturn bytearray(1 << 40)",
        "out of memory",
    ),
    ("ctypes.string_at(0)", "killed by signal 11"),
    ("os.abort()", "killed by signal 6"),
    ("os._exit(0)", "exit code 0"),
    ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)", "timeout"),
    ("os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    ("while True: pass", "timeout"),
    ("os.closerange(3, 200)\ntime.sleep(600)", ""),
    ("sys.stdout.close()\nos.close(1)\nos.close(2)\nreturn 1.0", None),
    ("os.chdir('/')\nos.environ.clear()\nreturn 1.0", None),
    ("subprocess.Popen(['sleep', '600'])\nreturn 1.0", None),
    ("threading.Thread(target=time.sleep, args=(600,)).start()\nreturn 1.0", None),
    ("conf['self'] = conf\nconf['array'] = numpy.ones(3)\nreturn 1.0", None),
    ("conf.clear()\nreturn 1.0", None),
    ("trial.set_user_attr('text', '\\ud800\\x00')\nreturn 1.0", None),
    ("trial.set_user_attr('long', 'x' * 1_000_000)\nreturn 1.0", None),
    ("trial.report(float('nan'), 0)\ntrial.report(float('inf'), 1)\ntrial.should_prune()\nreturn 1.0", None),
    ("[trial.report(1.0, step) for step in range(2000)]\nreturn 1.0", None),
    ("trial.report(1.0, 2 ** 70)\nreturn 1.0", "exception: ValueError: trial.report takes a step"),
    ("trial.suggest_categorical('x', ['other', 'kind'])", "exception: ValueError"),
    ("trial.suggest_float('y', 3.0, 1.0)", "exception: ValueError"),
    ("if os.fork() == 0: return 5.0\nos.wait()\nreturn 1.0", None),
    ("print('x' * 5_000_000)\nreturn 1.0", None),
]


def objective() -> str:
    functions = [
        f"def trial_{number}(trial, conf):\n{indent(deed, '    ')}\n" for number, (deed, _) in enumerate(DEEDS)
    ]
    return OBJECTIVE + "\n".join(functions)


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_every_bad_deed_costs_its_own_trial(tmp_path: Path, make_storage_url: Callable[[str], str], kind: str) -> None:
    completing = sum(cause is None for _, cause in DEEDS)
    project = Project(
        tmp_path, objective(), storage=make_storage_url(kind), n_trials=completing + 2,
        trial_timeout=10, max_consecutive_failures=1000, pruner={"type": "MedianPruner", "n_startup_trials": 1},
    )  # fmt: skip
    project.run("--local", "4")
    trials, records = project.study().trials, project.records()
    surprises = [
        (deed, state, said)
        for (deed, cause), trial, record in zip(DEEDS, trials, records, strict=False)
        if _is_surprise(cause, state := trial.state.name, said := str(record.get("cause")))
    ]
    assert surprises == []
    assert {trial.value for trial in trials if trial.state.name == "COMPLETE"} == {1.0}
    assert project.states()["COMPLETE"] == completing + 2
    assert (project.save_path / "results.csv").exists()


def test_a_tensor_is_a_number(tmp_path: Path) -> None:
    """Apart from the others: where all cores are taken, importing torch takes as long as a trial may."""
    project = Project(tmp_path, OBJECTIVE.replace("import numpy", "import torch").replace("1.0", "torch.tensor(1.0)"))
    project.run("-t", "1")
    assert project.study().trials[0].value == 1.0


def _is_surprise(cause: str | None, state: str, said: str) -> bool:
    return state != "COMPLETE" if cause is None else state != "FAIL" or not said.startswith(cause)
