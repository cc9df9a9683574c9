"""Inject every fault many times, and print what each has cost; beside it the same kills on plain Optuna.

    python -m benchmarks.chaos [--share 1.0] [--only PATTERN] [--json FILE]
    python -m benchmarks.chaos --show FILE...

Needs root (small disks, hosts of their own for the agents). With `--share 0.1` a tenth of the faults is injected. Each
row goes into the JSON file as soon as it is there, beside the rows of other names that the file held before.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import optuna

from aimlhpo.config.paths import replace_file
from tests.faults import outages, plain, scenarios, slurm
from tests.faults.verdict import Verdict
from tests.servers import PostgreSQL
from tests.slurm.cluster import Cluster

KINDS = ("sqlite", "journal", "postgresql")
COLUMNS = {
    "storage": "storage",
    "injected": "injected",
    "lost": "finished lost",
    "twice": "run twice",
    "running": "left RUNNING",
    "missed": "budget missed",
    "misprinted": "misprinted",
    "typical": "others go on: median (s)",
    "longest": "longest (s)",
}
HEADER = f"| fault | {' | '.join(COLUMNS.values())} |\n|---|---|{'---:|' * (len(COLUMNS) - 1)}"


@dataclass(frozen=True)
class Row:
    """A scenario to run in a folder of its own; `plain` on Optuna without aimlhpo."""

    name: str
    run: Callable[[Path], Verdict]
    plain: bool = False


class Stores:
    """New, empty storages of each kind."""

    def __init__(self, server: PostgreSQL, folder: str) -> None:
        self.server, self.folder = server, folder

    def url(self, kind: str) -> str:
        if kind == "postgresql":
            return self.server.url()
        folder = tempfile.mkdtemp(dir=self.folder)
        return f"sqlite:///{folder}/s.db" if kind == "sqlite" else f"journal://{folder}/s.journal"


def rows(stores: Stores, share: float) -> Iterator[Row]:
    yield from of_aimlhpo(stores, partial(_part, share))
    yield from of_plain_optuna(stores, partial(_part, share))


def _part(share: float, number: int) -> int:
    return max(1, round(number * share))


def of_aimlhpo(stores: Stores, times: Callable[[int], int]) -> Iterator[Row]:
    for kind in KINDS:
        url = partial(stores.url, kind)
        agents = partial(scenarios.agent_kills, rounds=times(5))
        crowd = partial(scenarios.starts, agents=1, slots=32)
        yield Row(f"workers {kind}", on_url(scenarios.worker_kills, url, times(200)))
        yield Row(f"agents {kind}", on_url(agents, url, times(200)))
        yield Row(f"locks {kind}", on_url(scenarios.lock_holders, url, times(20)))
        yield Row(f"frozen {kind}", on_url(scenarios.frozen_agents, url, times(10)))
        yield Row(f"starts of agents {kind}", partial(scenarios.starts, make_url=url, times=times(20)))
        yield Row(f"starts of workers {kind}", partial(crowd, make_url=url, times=times(20)))
    for kind in ("sqlite", "journal"):
        yield Row(f"disk {kind}", partial(outages.full_disk, kind=kind, times=times(5), seconds=10))
    yield Row("journal cut", partial(outages.cut_journal, times=times(40)))
    yield Row("database stopped", partial(outages.stopped_database, server=stores.server, times=times(4), seconds=60))
    yield Row("database crash", partial(outages.crashed_database, server=stores.server, times=times(10)))
    for option in ("", "--accounting"):
        name = "with accounting" if option else "without accounting"
        yield Row(f"cluster {name}", partial(on_a_cluster, option=option, rounds=times(10)))


def of_plain_optuna(stores: Stores, times: Callable[[int], int]) -> Iterator[Row]:
    for kind in KINDS:
        url = partial(stores.url, kind)
        yield Row(f"plain workers {kind}", on_url(plain.kills, url, times(200)), plain=True)
        yield Row(f"plain all {kind}", on_url(plain.all_killed, url, times(5)), plain=True)
        yield Row(f"plain frozen {kind}", on_url(plain.frozen, url, times(10)), plain=True)
        yield Row(f"plain starts {kind}", partial(plain.starts, make_url=url, times=times(5)), plain=True)
    yield Row("plain database", partial(plain.outage, server=stores.server, seconds=60), plain=True)


def on_url(run: Callable[[Path, str, int], Verdict], url: Callable[[], str], times: int) -> Callable[[Path], Verdict]:
    """The scenario on a new storage, made when it is run."""
    return lambda folder: run(folder, url(), times)


def on_a_cluster(folder: Path, option: str, rounds: int) -> Verdict:
    with Cluster(*filter(None, [option])) as cluster:
        verdict = slurm.cluster_faults(folder, cluster, rounds, n_trials=40 * rounds)
    note = f"accounting {'on' if option else 'off'}"
    return replace(verdict, note=f"{note}, {verdict.note}" if verdict.note else note)


def as_line(row: dict[str, Any]) -> str:
    if "broke" in row:
        return f"| {row['name']} | broke: {row['broke']} |"
    fault = f"{row['fault']} ({row['note']})" if row["note"] else row["fault"]
    times = row["resumed"]
    typical, longest = (f"{of(times):.1f}" if times else "-" for of in (median, max))
    cells = {**row, "typical": typical, "longest": longest}
    return " | ".join([f"| {fault}", *(str(cells[name]) for name in COLUMNS)]) + " |"


def run(row: Row) -> dict[str, Any]:
    """The row's verdict, or how it broke, as plain data."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="aimlhpo-chaos-"))
    try:
        found = asdict(row.run(folder))
        shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:  # noqa: BLE001  the other rows are run all the same, and the folder may tell
        print(f"{row.name} broke; its files are in {folder}", file=sys.stderr)
        found = {"broke": f"{type(error).__name__}: {' '.join(str(error).split())[-1000:]}"}
    return {"name": row.name, "plain": row.plain, **found, "took": round(time.monotonic() - began)}


def show(found: Iterable[dict[str, Any]]) -> None:
    known = list(found)
    for title, of_plain in (("aimlhpo", False), ("plain Optuna", True)):
        lines = [as_line(row) for row in known if row["plain"] is of_plain]
        print("\n".join([f"\n{title}\n\n{HEADER}", *lines]))


def read(file: Path) -> dict[str, dict[str, Any]]:
    return dict(json.loads(file.read_text())) if file.exists() else {}


def is_clean(row: dict[str, Any]) -> bool:
    costs = ("lost", "twice", "running", "missed", "misprinted")
    return "broke" not in row and not any(row[name] for name in costs)


def inject(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the chosen rows, each kept as soon as it is there."""
    found: dict[str, dict[str, Any]] = {}
    with PostgreSQL(lasting=True) as server, tempfile.TemporaryDirectory(prefix="aimlhpo-chaos-") as folder:
        for row in rows(Stores(server, folder), arguments.share):
            if re.search(arguments.only, row.name):
                found[row.name] = run(row)
                print(found[row.name], file=sys.stderr, flush=True)
                if arguments.json:
                    replace_file(arguments.json, json.dumps({**read(arguments.json), **found}, indent=1))
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Inject every fault, and print what each has cost.")
    parser.add_argument("--share", type=float, default=1.0, help="part of the faults to inject (default: all)")
    parser.add_argument("--only", default="", help="only rows in whose name this regular expression is found")
    parser.add_argument("--json", type=Path, help="also keep the rows in this file")
    parser.add_argument("--show", type=Path, nargs="+", help="print what these files hold, and inject nothing")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if arguments.show:
        show(row for file in arguments.show for row in read(file).values())
        return 0
    found = inject(arguments)
    show(found)
    return 0 if all(is_clean(row) for row in found if not row["plain"]) else 1


if __name__ == "__main__":
    sys.exit(main())
