"""Other packages as searchers: each runs in an environment of its own, and is asked over a pipe.

A peer's program (`programs/`) is started once in each process that searches, and begins anew with each search.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna

from benchmarks.peers.environment import PeerMissing, environment
from benchmarks.peers.peer import variables
from benchmarks.search.simulation import Asked, Method, Searcher
from benchmarks.search.task import Space, Task, active

PROGRAMS = Path(__file__).with_name("programs")
_TOLD = 2000  # characters of what a program that failed has written


@dataclass(frozen=True)
class Package:
    """A package, its environment and its program.

    Attributes:
        name: its environment's name, in .venv-bench/.
        requirement: what pip installs there, several separated by blanks; None: it runs in this environment.
        distribution: whose version is told.
    """

    name: str
    program: Path
    requirement: str | None = None
    distribution: str | None = None

    def python(self) -> str:
        """Its interpreter. Raises PeerMissing where it cannot be installed."""
        return environment(self.name, self.requirement) if self.requirement else sys.executable

    def version(self) -> str:
        code = f"from importlib.metadata import version; print(version({self.distribution!r}))"
        done = subprocess.run([self.python(), "-c", code], capture_output=True, text=True, check=True)
        return f"{self.distribution} {done.stdout.strip()}"


_SYNE = Package(
    "search-syne",
    PROGRAMS / "syne_tune_search.py",
    "syne-tune>=0.16.0 botorch>=0.18.1 torch==2.13.0",
    "syne-tune",
)
_RAY = Package(
    "search-ray",
    PROGRAMS / "ray_tune_search.py",
    "ray[tune]>=2.60.0 optuna>=5.0 hpbandster>=0.7.4 ConfigSpace>=1.2.0",
    "ray",
)
_SMAC = Package("search-smac", PROGRAMS / "smac_search.py", "smac>=2.4.1", "smac")
_NEPS = Package(
    "search-neps",
    PROGRAMS / "neps_search.py",
    "neural-pipeline-search>=0.17.0 torch==2.13.0",
    "neural-pipeline-search",
)


@dataclass(frozen=True)
class Peer:
    """A method of a package: `method` is what its program calls it."""

    name: str
    package: Package
    method: str

    def as_method(self) -> Method:
        def start(seed: int, task: Task, trainings: int, workers: int) -> Searcher:
            return _PeerSearcher(self, task, seed, trainings, workers)

        return Method(self.name, start)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("syne tune ASHA", _SYNE, "asha"),
        Peer("syne tune BOHB", _SYNE, "bohb"),
        Peer("syne tune GP, no pruning", _SYNE, "gp"),
        Peer("syne tune ASHA, CQR", _SYNE, "cqr"),
        Peer("syne tune ASHA, BORE", _SYNE, "bore"),
        Peer("smac Hyperband", _SMAC, "smac"),
        Peer("ray tune ASHA, Optuna", _RAY, "asha"),
        Peer("ray tune BOHB", _RAY, "bohb"),
        Peer("neps PriorBand", _NEPS, "priorband"),
    )
}
"""By name."""


def installed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Install what these peers need; those that are there now, and why the others are not."""
    there, missing = [], []
    for name in names:
        try:
            PEERS[name].package.python()
            there.append(name)
        except PeerMissing as error:
            missing.append(f"{name}: {error}")
    return there, missing


def versions(names: Iterable[str]) -> list[str]:
    """The packages behind these peers, with their versions here, and Optuna's."""
    packages = dict.fromkeys(PEERS[name].package for name in names)
    return [f"optuna {optuna.__version__}", *(package.version() for package in packages)]


class PeerFailed(Exception):
    """A peer's program has ended with an error."""


class _Program:
    """The process of a peer's program."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._written = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        answers, into = os.pipe()  # not the standard output: packages print
        self._process = subprocess.Popen(
            [package.python(), str(package.program), str(into)],
            stdin=subprocess.PIPE,
            stdout=self._written,
            stderr=self._written,
            pass_fds=[into],
            text=True,
            env={**variables(""), "PYTHONPATH": str(PROGRAMS)},
        )
        os.close(into)
        self._answers = os.fdopen(answers)
        atexit.register(self._end)

    def answer(self, request: str, **more: Any) -> Any:
        """What the program says to the request. Raises PeerFailed where it has ended."""
        with suppress(BrokenPipeError):  # then there is no answer either, and what it has written says why
            print(json.dumps({"request": request, **more}), file=self._process.stdin, flush=True)
        line = self._answers.readline()
        if not line:
            code = self._process.wait()
            self._written.seek(0)
            raise PeerFailed(
                f"{self._package.program.name} ended with {code} at {request!r}:\n{self._written.read()[-_TOLD:]}"
            )
        return json.loads(line)

    def _end(self) -> None:
        self._process.communicate()  # it ends when there are no more requests


@cache
def _program(package: Package) -> _Program:
    return _Program(package)


class _PeerSearcher:
    def __init__(self, peer: Peer, task: Task, seed: int, trainings: int, workers: int) -> None:
        self._space, self._program = task.space, _program(peer.package)
        self._program.answer(
            "start",
            method=peer.method,
            space=[_labelled(entry, task.space) for entry in task.space],
            epochs=task.epochs,
            trainings=trainings,
            workers=workers,
            seed=seed,
        )

    def ask(self) -> Asked | None:
        answer = self._program.answer("ask")
        if answer is None:
            return None
        number, values, epochs = answer
        return Asked(number, _values_of(self._space, values), epochs)

    def report(self, asked: Asked, epoch: int, value: float) -> bool:
        return bool(self._program.answer("report", number=asked.number, epoch=epoch + 1, value=value))

    def finish(self, asked: Asked, epoch: int, value: float) -> None:
        self._program.answer("finish", number=asked.number, epoch=epoch + 1, value=value)

    def failed(self, asked: Asked) -> None:
        self._program.answer("failed", number=asked.number)


# --- choices as strings: no package takes every kind of value, nor values of several kinds ---


def _label(place: int) -> str:
    return f"c{place}"


def _labelled(entry: Mapping[str, Any], space: Space) -> dict[str, Any]:
    told = dict(entry)
    if entry["type"] == "categorical":
        told["choices"] = [_label(place) for place in range(len(entry["choices"]))]
    if "when" in entry:
        known = {other["name"]: [*other.get("choices", [])] for other in space}
        told["when"] = {
            name: [_label(known[name].index(value)) if known[name] else value for value in allowed]
            for name, allowed in entry["when"].items()
        }
    return told


def _values_of(space: Space, told: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those parameters that the configuration has."""
    values: dict[str, Any] = {}
    for entry in space:
        name = entry["name"]
        if not active(entry, values):
            continue
        if entry["type"] == "categorical":
            values[name] = entry["choices"][int(told[name].removeprefix("c"))]
        else:
            kind = int if entry["type"] == "int" else float
            values[name] = min(max(kind(told[name]), entry["low"]), entry["high"])
    return values
