"""The benchmark: aimlhpo beside plain Optuna, echo-opt, Syne Tune and Ray Tune. `make bench` and `make bench-full`.

    python -m benchmarks.run [--full] [--only WORD] [--minutes 14] [--out DIR] [--docs]

Writes DIR/bench.json, bench.md and bench.svg, with --docs the table and the picture of docs/performance.md as well.
Without --full the cells that the time does not suffice for are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, plan
from benchmarks.machine import machine
from benchmarks.measure import Figures, measure
from benchmarks.peers import PEERS
from benchmarks.peers.environment import PeerMissing
from benchmarks.plot import plot
from benchmarks.processes import PeerFailed
from benchmarks.stores import Stores
from benchmarks.table import table
from tests.servers import ServerMissingError

_LIMIT = {False: 150.0, True: 600.0}  # seconds for one cell, in a short and in a full run
_LEAST = 15.0  # seconds that are left when the last cell is begun
_PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- figures: python -m benchmarks.run --docs -->", "<!-- end of figures -->"
_REASONS = (PeerMissing, PeerFailed, ServerMissingError, OSError, subprocess.SubprocessError, RuntimeError)


@dataclass(frozen=True)
class Result:
    """What came of a cell: figures, or the reason why there are none."""

    cell: Cell
    figures: Figures | None
    reason: str | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(cells: list[Cell], limit: float, end: float, out: Path) -> list[Result]:
    """The cells one after the other, none begun after `end`; what is known is written after each."""
    results: list[Result] = []
    before = machine()
    with Stores() as stores:
        for cell in cells:
            left = end - time.monotonic()
            result = _one(cell, stores, min(limit, left)) if left > _LEAST else Result(cell, None, "no time left", 0.0)
            results.append(result)
            print(f"{result.seconds:5.0f} s  {cell}: {result.figures or result.reason}", file=sys.stderr, flush=True)
            write(results, before, out)
    return results


def _one(cell: Cell, stores: Stores, limit: float) -> Result:
    begun = time.monotonic()
    figures, reason = None, None
    try:
        figures = measure(cell, stores, limit)
    except _REASONS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    return Result(cell, figures, reason, time.monotonic() - begun)


def write(results: list[Result], before: dict[str, str], out: Path) -> None:
    about = {**before, **_versions({result.cell.peer for result in results if result.figures})}
    document = {"machine": about, "results": [result.as_dict() for result in results]}
    (out / "bench.json").write_text(json.dumps(document, indent=1))
    (out / "bench.md").write_text(table([(result.cell, result.figures, result.reason) for result in results], about))


def _versions(names: set[str]) -> dict[str, str]:
    return {PEERS[name].title: _version(name) for name in sorted(names)}


@cache
def _version(name: str) -> str:
    return PEERS[name].version()


def install(cells: list[Cell]) -> None:
    """Make the peers' environments before the clock runs; who cannot be installed is told of in the table."""
    for name in dict.fromkeys(cell.peer for cell in cells):
        with suppress(PeerMissing):
            PEERS[name].python()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all cells, however long it takes")
    parser.add_argument("--only", default="", help="only cells whose description holds this word")
    parser.add_argument("--minutes", type=float, default=14.0, help="length of a short run (default: 14)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--docs", action="store_true", help="also write the page of the documentation")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cells = [cell for cell in plan(full=arguments.full) if arguments.only in str(cell)]
    install(cells)
    end = float("inf") if arguments.full else time.monotonic() + 60 * arguments.minutes
    results = run(cells, _LIMIT[arguments.full], end, arguments.out)
    plot([(result.cell, result.figures) for result in results], arguments.out / "bench.svg")
    print((arguments.out / "bench.md").read_text())
    if arguments.docs:
        publish(arguments.out)


def publish(out: Path) -> None:
    """Put the table and the picture into the documentation."""
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    picture = _PAGE.with_suffix(".svg")
    shutil.copy(out / "bench.svg", picture)
    figures = f"{(out / 'bench.md').read_text().strip()}\n\n![Idle gaps and costs of a report]({picture.name})"
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{figures}\n\n{_END}{after}")


if __name__ == "__main__":
    main()
