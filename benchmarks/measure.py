"""One cell: the peer is run with a specification, and its trials' notes are read."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import notes, processes
from benchmarks.cells import Cell
from benchmarks.peers import PEERS
from benchmarks.peers.peer import Spec, variables
from benchmarks.processes import PeerFailed
from benchmarks.stores import Stores

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "torch"
TARGET = 0.09  # the validation loss of a good configuration of the digits example
_REPORTS_BEFORE = 20  # that each finished trial has, where reports are measured
_STEPS = 100
_COMPUTE = 60_000  # additions: some milliseconds of Python
Figures = dict[str, Any]


def measure(cell: Cell, stores: Stores, limit: float) -> Figures:
    """The figures of the cell. Raises PeerMissing or PeerFailed where there are none."""
    return _MEASURES[cell.measure](cell, stores, limit)


def _gap(cell: Cell, stores: Stores, limit: float) -> Figures:
    found, _ = _run(cell, stores, limit, seconds=cell.seconds)
    gaps = notes.gaps(found, cell.workers)
    if not gaps:
        raise PeerFailed("no slot ran two trials")
    return notes.quantiles(gaps)


def _report(cell: Cell, stores: Stores, limit: float) -> Figures:
    found, _ = _run(cell, stores, limit, steps=_STEPS, pause=0.02)
    return notes.quantiles([cost for trial in found for cost in trial["costs"]])


def _throughput(cell: Cell, stores: Stores, limit: float) -> Figures:
    found, _ = _run(cell, stores, limit, steps=5)
    return {"rate": notes.throughput(found), "count": len(found)}


def _start(cell: Cell, stores: Stores, limit: float) -> Figures:
    """Workers that import torch: how long until the first trains, until all do, and their memory then."""
    seen: Figures = {}

    def all_train(folder: Path, family: Callable[[], list[int]]) -> bool:
        found = notes.begun(folder)
        if len(found) >= cell.workers:
            seen.update(begins=sorted(note["begin"] for note in found), memory=processes.memory(family()))
        return bool(seen)

    _, started = _run(cell, stores, limit, until=all_train, seconds=cell.seconds, **{"import": "torch"})
    first, last = seen["begins"][0] - started, seen["begins"][-1] - started
    return {"seconds": first, "all": last, "memory": seen["memory"] / cell.workers}


def _step(cell: Cell, stores: Stores, limit: float) -> Figures:
    """The step of a loop in Python, with and without reports, twice each in turn."""
    medians: dict[bool, list[float]] = {True: [], False: []}
    for report in (False, True, False, True):
        found, _ = _run(cell, stores, limit / 4, steps=2 * _STEPS, compute=_COMPUTE, report=report)
        medians[report].append(notes.quantiles([step for trial in found for step in trial["steps"]])["median"])
    without, reporting = min(medians[False]), min(medians[True])
    return {"growth": reporting / without - 1, "step": without}


def _target(cell: Cell, stores: Stores, limit: float) -> Figures:
    found, started = _run(cell, stores, limit, digits=str(EXAMPLE), epochs=20)
    return notes.to_target(found, TARGET, started)


_MEASURES: dict[str, Callable[[Cell, Stores, float], Figures]] = {
    "gap": _gap, "report": _report, "throughput": _throughput, "start": _start, "step": _step, "target": _target,
}  # fmt: skip


def _run(
    cell: Cell, stores: Stores, limit: float, until: Callable[..., bool] | None = None, **keys: Any
) -> tuple[list[notes.Note], float]:
    """Run the peer; its trials' notes, and when it was started."""
    peer = PEERS[cell.peer]
    python = peer.python()
    folder = Path(tempfile.mkdtemp(dir=stores.folder))
    (folder / "notes").mkdir()
    reports = _REPORTS_BEFORE if cell.measure == "report" else 0
    spec = _spec(cell, folder, stores.url(cell.storage, cell.finished, reports)) | keys
    commands = peer.commands(python, spec)
    started = time.time()
    log = folder / "log"

    def done(family: Callable[[], list[int]]) -> bool:
        return until is not None and until(folder / "notes", family)

    processes.run(commands, variables(json.dumps(spec)), log, limit, done)
    found = notes.read(folder / "notes")
    if not found and until is None:
        raise PeerFailed(f"no trial has ended: {processes.last_lines(log)}")
    shutil.rmtree(folder, ignore_errors=True)
    return found, started


def _spec(cell: Cell, folder: Path, url: str) -> Spec:
    """What all peers are told, in their environment."""
    spec: Spec = {
        "folder": str(folder), "notes": str(folder / "notes"), "url": url, "seed": 100 * cell.seed,
        "workers": cell.workers, "trials": cell.trials, "counted": cell.finished - cell.finished // 50,
    }  # fmt: skip
    if cell.measure != "target":  # there everybody's defaults are compared
        spec["sampler"] = cell.sampler
    if cell.pruner:
        spec["pruner"] = cell.pruner
    return spec
