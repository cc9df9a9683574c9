"""Makes the studies of data/, which an earlier version has begun and today's has to go on with.

Each is made with the command line alone, as a user would, so this runs with any version: with the one that the
interpreter imports. Those in data/ are of version 0.1.0 at commit 41dcd9a, but `automatic` is of commit e2d970b, the
last that kept its records where Optuna's tools show them. They are never made anew: a later version adds studies of its
own beside them. It was run as

    unshare --map-root-user --uts sh -c 'hostname node1; .venv/bin/python tests/compatibility/make_studies.py'

so that no machine's name is kept. Everything lies below one directory, version and interpreter by a link, so that no
other path gets into configurations, tracebacks and leases; the tests put their own directory in its place.

An archive holds the user's files, `run/` (the save_path), `evidence.jsonl` (what the objective noted while it trained),
and `status.json`: what `aimlhpo status --json` of that version said of the study as it lies in the archive.
"""

from __future__ import annotations

import atexit
import gzip
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

ROOT = Path("/tmp/aimlhpo-compatibility")
HERE = Path(__file__).parent
DATA = HERE / "data"

SPACE: dict[str, Any] = {
    "x": {"type": "float", "settings": {"low": 0.0, "high": 1.0}},
    "optimizer:learning_rate": {"type": "loguniform", "settings": {"name": "learning_rate", "low": 1e-5, "high": 0.1}},
    "optimizer:name": {"type": "categorical", "settings": {"name": "optimizer", "choices": ["adam", "sgd"]}},
    "optimizer:momentum": {
        "type": "uniform",
        "settings": {"name": "momentum", "low": 0.0, "high": 0.9},
        "dependency": {
            "type": "optimize_iff",
            "on": "optimizer.name",
            "conditions": [{"type": "equal", "compare_value": "sgd"}],
            "otherwise": 0.0,
        },
    },
    "optimizer:weight_decay": {"type": "logfinrange", "settings": {"low": 1e-6, "high": 1e-2, "size": 5}},
    "optimizer:warmup": {"type": "finrange", "settings": {"low": 0.1, "high": 0.9, "size": 5}},
    "layers:0:units": {"type": "log_int", "settings": {"low": 4, "high": 64}},
    "layers:1:units": {
        "type": "int",
        "settings": {"low": 1, "high": 4},
        "dependency": {"type": "multiply", "on": "layers.0.units"},
    },
    "data:batch_size": {"type": "log_ordinal", "settings": {"choices": [16, 32, 64, 128]}},
    "data:workers": {"type": "ordinal", "settings": {"choices": [1, 2, 6]}},
    "data:fraction": {"type": "discrete_uniform", "settings": {"low": 0.2, "high": 1.0, "q": 0.2}},
    "data:crop": {"type": "categorical", "settings": {"choices": [16, 0.5, False, None, [8, 8], "none"]}},
    "data:folds": {"type": "multiple", "settings": {"values": [3, 5, 10]}},
    "data:quantile": {"type": "linear", "settings": {"start": 0.25, "end": 0.75, "step": 0.25}},
    "data:scale": {"type": "logspace", "settings": {"base": 10, "start": -3, "end": -1, "count": 3}},
    "data:mode": {"type": "single", "settings": {"value": "fast"}},
    "data:seed": {"type": "constant", "settings": {"value": 7}},
    "depth": {"type": "int", "settings": {"low": 1, "high": 4, "step": 1}},
}
MODEL: dict[str, Any] = {
    "steps": 4,
    "x": 0.5,
    "asks": True,
    "optimizer": {"name": "adam", "learning_rate": 0.01, "momentum": 0.0, "weight_decay": 1e-4, "warmup": 0.5},
    "layers": [{"units": 16}, {"units": 32}],
    "heads": {"hyper_opt": {"suggest": "int", "params": {"low": 2, "high": 8, "step": 2}}},
    "width": {
        "hyper_opt": {
            "suggest": "int",
            "params": {"low": 4, "high": 8},
            "dependency": {"type": "multiply", "on": "heads"},
        }
    },
    "data": {
        "batch_size": 32, "workers": 2, "fraction": 1.0, "crop": None, "folds": 5, "quantile": 0.5, "scale": 0.01,
        "mode": "slow", "seed": 1,
    },
}  # fmt: skip
ONLY_X = {"x": SPACE["x"]}
MEDIAN = {"type": "MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 1}


class Making:
    """A user's directory, and commands that run in it."""

    def __init__(self, name: str, model: dict[str, Any], /, **optuna: Any) -> None:
        self.folder = ROOT / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shutil.copy(HERE / "objective.py", self.folder)
        (self.folder / "model.yml").write_text(yaml.safe_dump(model, sort_keys=False))
        self.write("hyperparameters.yml", **{"name": name, **optuna})

    def write(self, file: str, /, **optuna: Any) -> None:
        """A hyperparameter file, with what all studies have in common."""
        common = {"objective": "objective.py", "metric": "loss", "seed": 11, "save_path": "run"}
        (self.folder / file).write_text(yaml.safe_dump({"optuna": {**common, **optuna}}, sort_keys=False))

    def command(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "version"), "STUDIES": str(self.folder)}
        process = subprocess.Popen(
            [str(ROOT / "python/bin/python"), "-m", "aimlhpo", verb, *arguments],
            cwd=self.folder, env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(process.kill)  # to no effect on one that has ended
        return process

    def finish(self, process: subprocess.Popen[str], expect: int) -> str:
        """Wait for the command's end, and give what it printed."""
        output, errors = process.communicate(timeout=120)
        if process.returncode != expect:
            raise SystemExit(f"exit code {process.returncode}, not {expect}:\n{output}\n{errors}")
        return output

    def run(self, verb: str, *arguments: str, expect: int = 0) -> str:
        return self.finish(self.command(verb, *arguments), expect)

    def optimize(self, *arguments: str, file: str = "hyperparameters.yml") -> str:
        return self.run("optimize", file, "model.yml", *arguments)

    def optimize_until_held(
        self, *held: tuple[int, int], workers: int = 1, arguments: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start the study, and return when each of these trials stands still at its step."""
        for number, step in held:
            self.hold(number, step).touch()
        process = self.command("optimize", "hyperparameters.yml", "model.yml", "--local", str(workers), *arguments)
        wait_until(lambda: self.held() >= {number for number, _ in held} or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit(f"the study ended before: {process.communicate()}")
        return process

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """As Ctrl-C does it: what runs is given back."""
        process.send_signal(signal.SIGINT)
        self.finish(process, expect=130)

    def hold(self, number: int, step: int) -> Path:
        return self.folder / f"hold-{number}-{step}"

    def held(self) -> set[int]:
        """The trials that have come to where they are held."""
        evidence = self.folder / "evidence.jsonl"
        lines = evidence.read_text().splitlines() if evidence.exists() else []
        return {line["trial"] for line in map(json.loads, lines) if line["event"] == "held"}

    def store(self) -> None:
        """Write the archive, and last into it what this version says of the study's status: looking changes it."""
        for hold in self.folder.glob("hold-*"):
            hold.unlink()
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        for lease in self.folder.glob("run/.aimlhpo/leases/*.json"):
            make_old(lease)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(self.folder, arcname=".", filter=anonymous)
            (self.folder / "status.json").write_text(self.run("status", "run", "--json"))
            archive.add(self.folder / "status.json", arcname="status.json", filter=anonymous)
        refuse_what_names_this_machine(buffer.getvalue())
        (DATA / f"{self.folder.name}.tar.gz").write_bytes(gzip.compress(buffer.getvalue(), mtime=0))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.02)


def make_old(lease: Path) -> None:
    """Let an hour pass, in which the lease's host was started again: so it is read alike at once and everywhere."""
    written = lease.stat().st_mtime
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "boot": "00000000-0000-0000-0000-000000000000"}))
    os.utime(lease, times=(written - 3600, written - 3600))


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def refuse_what_names_this_machine(content: bytes) -> None:
    names = {sys.prefix, str(installed()), str(HERE.parents[1]), str(Path.home()), socket.gethostname()}
    found = [name for name in names if name not in ("/", "node1") and name.encode() in content]
    if found:
        raise SystemExit(f"the archive would name {', '.join(found)}")


def installed() -> Path:
    """Where the version lies that this interpreter imports."""
    spec = importlib.util.find_spec("aimlhpo")
    if spec is None or spec.origin is None:
        raise SystemExit("this interpreter has no aimlhpo")
    return Path(spec.origin).parents[1]


# --- the studies ---


def sqlite() -> Making:
    """All kinds of parameters; failed, pruned and complete trials; one interrupted after its first step."""
    making = Making(
        "sqlite",
        {**MODEL, "fails": [3], "diverges": [5]},
        name="rich.db",
        n_trials=16,
        sampler={"type": "TPESampler", "n_startup_trials": 4},
        pruner=MEDIAN,
        pruning="strict",
        target_value=-1.0,
        enqueue=[{"x": 0.25, "optimizer:name": "sgd"}, {"learning_rate": 1e-3, "data:crop": [8, 8], "depth": 2}],
        parameters=SPACE,
    )
    making.interrupt(making.optimize_until_held((11, 1)))
    return making


def journal() -> Making:
    """The same in a journal of more than 4 MB, which has a snapshot, with retries and few checkpoints.

    Trial 15 waits to be the second attempt at the parameters of trial 13, and will fail as well.
    """
    making = Making(
        "journal",
        {**MODEL, "fails": [3, 13, 15], "diverges": [5], "padded": 8},
        storage="journal",
        n_trials=16,
        sampler={"type": "RandomSampler"},
        pruner=MEDIAN,
        pruning="strict",
        max_retries=1,
        keep_checkpoints="best",
        parameters=SPACE,
    )
    making.optimize("-t", "8", "--local")
    making.run("status", "run")
    making.interrupt(making.optimize_until_held((14, 1), arguments=("-r", "1")))
    if not list(making.folder.glob("run/*.journal.snapshot")):
        raise SystemExit("the journal has no snapshot")
    return making


def killed() -> Making:
    """An agent with three workers, killed while two trials run, and while the storage is away.

    It has not been told of trial 6, which is finished, nor that its slot has gone on with the next.
    """
    making = Making(
        "killed",
        {"steps": 4, "x": 0.5},
        n_trials=12,
        grace_period=6,
        sampler={"type": "RandomSampler"},
        pruner={"type": "NopPruner"},
        parameters=ONLY_X,
    )
    making.hold(7, 0).touch()
    process = making.optimize_until_held((4, 2), (5, 1), (6, 3), workers=3)
    time.sleep(1)  # for what the trials have reported to be written
    with closing(sqlite3.connect(making.folder / "run/killed.db", timeout=60, isolation_level=None)) as storage:
        storage.execute("BEGIN EXCLUSIVE")
        making.hold(6, 3).unlink()
        wait_until(lambda: 7 in making.held() and bool(list(making.folder.glob("run/.aimlhpo/outbox/*.json"))))
        process.kill()
        process.communicate(timeout=60)
        storage.execute("ROLLBACK")
    making.run("results", "run")
    return making


def grid() -> Making:
    """Some of a grid's eighteen combinations: one has failed, one is interrupted, the others wait."""
    drawn = {"type": "uniform", "settings": {"low": 0.0, "high": 1.0}}
    only_plain = {"type": "optimize_iff", "on": "kind", "conditions": [{"type": "equal", "compare_value": "plain"}]}
    making = Making(
        "grid",
        {"steps": 2, "x": 0.5, "size": 1, "kind": "plain", "rate": 0.1, "fails": [2]},
        pruner={"type": "NopPruner"},
        parameters={
            "x": {"type": "random", "settings": {"distribution": drawn, "count": 2}},
            "size": {"type": "linear", "settings": {"start": 2, "end": 6, "step": 2}},
            "kind": {"type": "multiple", "settings": {"values": ["plain", None]}},
            "rate": {
                "type": "logspace",
                "settings": {"base": 10, "start": -2, "end": -1, "count": 2},
                "dependency": only_plain,
            },
        },
    )
    making.interrupt(making.optimize_until_held((7, 1)))
    return making


def asha() -> Making:
    """Trials paused at the rungs of 1 and 3 steps, which later ones, all worse, will let go on."""
    making = Making(
        "asha",
        {"steps": 9, "x": 0.5},
        n_trials=27,
        sampler={"type": "RandomSampler"},
        pruner={"type": "ASHA", "mode": "promotion", "max_resource": "steps"},
        enqueue=[{"x": number / 100} for number in range(27)],
        parameters=ONLY_X,
    )
    making.interrupt(making.optimize_until_held((14, 0)))
    return making


def pareto() -> Making:
    """Two metrics and two constraints, stopped by a smaller budget."""
    making = Making(
        "pareto",
        {"steps": 3, "x": 0.5, "size": 8},
        metric=["loss", "size"],
        direction=["minimize", "minimize"],
        constraints=["size <= 24", "latency < 6 * 2 ** (1 + x)"],
        n_trials=14,
        sampler={"type": "NSGAIISampler", "population_size": 4},
        pruner={**MEDIAN, "n_startup_trials": 6, "metric": "loss"},
        pruning="strict",
        enqueue_default=True,
        enqueue=[{"x": 0.6, "size": 2}],
        parameters={**ONLY_X, "size": {"type": "int", "settings": {"low": 1, "high": 32}}},
    )
    making.optimize("-t", "10", "--local")
    return making


def warm_start() -> Making:
    """A finished study, and in the same storage one that has taken over those of its trials that fit, and some more."""
    both = {
        "storage": "sqlite:///${STUDIES}/studies.db",
        "n_trials": 8,
        "sampler": {"type": "RandomSampler"},
        "pruner": MEDIAN,
        "pruning": "strict",
    }
    narrow = {"x": {"type": "float", "settings": {"low": 0.0, "high": 0.7}}}
    making = Making(
        "warm-start", {"steps": 3, "x": 0.5}, **both, warm_start_from={"study_name": "source"}, parameters=narrow
    )
    making.write("source.yml", name="source", **{**both, "save_path": "source"}, parameters=ONLY_X)
    making.optimize("--local", file="source.yml")
    (making.folder / "evidence.jsonl").unlink()
    making.interrupt(making.optimize_until_held((10, 1)))
    return making


def automatic() -> Making:
    """Sampler and pruner are chosen by default; ended by its target, with trials pruned and failed before."""
    making = Making(
        "automatic",
        {"steps": 9, "x": 0.5, "optimizer": {"name": "adam"}, "fails": [2]},
        n_trials=24,
        target_value=0.2,
        pruning="strict",
        enqueue=[*({"x": 0.3 + number / 100} for number in range(14)), {"x": 0.0}],
        parameters={**ONLY_X, "optimizer:name": SPACE["optimizer:name"]},
    )
    making.optimize("--local")
    (making.folder / "run/report.html").unlink()  # a large file that says nothing of its own
    return making


STUDIES = {
    "sqlite": sqlite,
    "journal": journal,
    "killed": killed,
    "grid": grid,
    "asha": asha,
    "pareto": pareto,
    "warm-start": warm_start,
    "automatic": automatic,
}


def main(names: list[str]) -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    (ROOT / "version").symlink_to(installed())
    (ROOT / "python").symlink_to(sys.prefix)
    for name in names or STUDIES:
        STUDIES[name]().store()
        print(f"{name}: {(DATA / f'{name}.tar.gz').stat().st_size} bytes")
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
