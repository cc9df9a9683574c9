"""Inject every fault many times, and print what each has cost; beside it the same kills on plain Optuna.

    python -m benchmarks.chaos [--share 1.0] [--only WORD] [--json FILE]

Needs root (small disks, hosts of their own for the agents). With `--share 0.1` a tenth of the faults is injected.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import optuna

from tests.faults import outages, plain, scenarios, slurm
from tests.faults.verdict import Verdict
from tests.servers import PostgreSQL
from tests.slurm.cluster import Cluster

KINDS = ("sqlite", "journal", "postgresql")
HEADER = "| fault | storage | injected | finished lost | run twice | left RUNNING | budget missed | others go on (s) |"
RULE = "|---|---|---:|---:|---:|---:|---:|---:|"


@dataclass(frozen=True)
class Row:
    """A scenario to run in a folder of its own; `plain` on Optuna without aimlhpo."""

    name: str
    run: Callable[[Path], Verdict]
    plain: bool = False


class Stores:
    """New, empty storages of each kind."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server

    def url(self, kind: str) -> str:
        if kind == "postgresql":
            return self.server.url()
        folder = tempfile.mkdtemp(prefix="aimlhpo-chaos-")
        return f"sqlite:///{folder}/s.db" if kind == "sqlite" else f"journal://{folder}/s.journal"


def rows(stores: Stores, share: float) -> Iterator[Row]:
    def times(number: int) -> int:
        return max(1, round(number * share))

    for kind in KINDS:
        url = partial(stores.url, kind)
        yield Row(f"workers {kind}", on_url(scenarios.worker_kills, url, times(200)))
        yield Row(f"agents {kind}", on_url(scenarios.agent_kills, url, times(30)))
        yield Row(f"locks {kind}", on_url(scenarios.lock_holders, url, times(10)))
        yield Row(f"frozen {kind}", on_url(scenarios.frozen_agents, url, times(5)))
        yield Row(f"starts {kind}", partial(scenarios.starts, make_url=url, times=times(20)))
    for kind in ("sqlite", "journal"):
        yield Row(f"disk {kind}", partial(outages.full_disk, kind=kind, times=times(5), seconds=10))
    yield Row("journal cut", partial(outages.cut_journal, times=times(30)))
    yield Row("database", partial(outages.stopped_database, server=stores.server, times=times(2), seconds=60))
    for option in ("", "--accounting"):
        yield Row(f"cluster {option}", partial(on_a_cluster, option=option, rounds=times(3)))
    for kind in KINDS:
        yield Row(f"plain workers {kind}", on_url(plain.kills, partial(stores.url, kind), times(200)), plain=True)
    yield Row("plain database", partial(plain.outage, server=stores.server, seconds=60), plain=True)


def on_url(run: Callable[[Path, str, int], Verdict], url: Callable[[], str], times: int) -> Callable[[Path], Verdict]:
    """The scenario on a new storage, made when it is run."""
    return lambda folder: run(folder, url(), times)


def on_a_cluster(folder: Path, option: str, rounds: int) -> Verdict:
    with Cluster(*filter(None, [option])) as cluster:
        verdict = slurm.cluster_faults(folder, cluster, rounds, n_trials=30 * rounds)
    return replace(verdict, note=f"accounting {'on' if option else 'off'}")


def as_line(verdict: Verdict) -> str:
    numbers = (verdict.injected, verdict.lost, verdict.twice, verdict.running, verdict.missed)
    resumed = "-" if verdict.resumed is None else f"{verdict.resumed:.1f}"
    fault = f"{verdict.fault} ({verdict.note})" if verdict.note else verdict.fault
    return f"| {fault} | {verdict.storage} | {' | '.join(map(str, numbers))} | {resumed} |"


def run(chosen: list[Row]) -> list[tuple[Row, Verdict | str]]:
    """Each row's verdict, or how it broke."""
    found: list[tuple[Row, Verdict | str]] = []
    for row in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="aimlhpo-chaos-", ignore_cleanup_errors=True) as folder:
            try:
                found.append((row, row.run(Path(folder))))
            except (AssertionError, OSError, RuntimeError) as error:
                found.append((row, f"{type(error).__name__}: {error}"))
        print(f"{row.name}: {time.monotonic() - began:.0f} s: {found[-1][1]}", file=sys.stderr, flush=True)
    return found


def show(found: list[tuple[Row, Verdict | str]]) -> None:
    for title, of_plain in (("aimlhpo", False), ("plain Optuna", True)):
        print(f"\n{title}\n\n{HEADER}\n{RULE}")
        for row, verdict in found:
            if row.plain is of_plain:
                print(as_line(verdict) if isinstance(verdict, Verdict) else f"| {row.name} | broke: {verdict} |")


def main() -> int:
    parser = argparse.ArgumentParser(description="Inject every fault, and print what each has cost.")
    parser.add_argument("--share", type=float, default=1.0, help="part of the faults to inject (default: all)")
    parser.add_argument("--only", default="", help="only rows whose name holds this word")
    parser.add_argument("--json", type=Path, help="also write the verdicts to this file")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with PostgreSQL() as server:
        found = run([row for row in rows(Stores(server), arguments.share) if arguments.only in row.name])
    show(found)
    if arguments.json:
        verdicts = {row.name: asdict(v) if isinstance(v, Verdict) else v for row, v in found}
        arguments.json.write_text(json.dumps(verdicts, indent=1))
    ours = [verdict for row, verdict in found if not row.plain]
    return 0 if all(isinstance(verdict, Verdict) and verdict.clean for verdict in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
