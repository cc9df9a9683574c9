"""What the benchmark measures: cells as data, in the order in which they are run.

A row of the table is a setting; each peer that can run it has a cell in it. Cells of one row are run one after the
other, so that they meet the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

PEERS = ("aimlhpo", "optuna", "echo", "syne", "ray")
OPTUNA_KIND = ("aimlhpo", "optuna")
STORAGES = ("sqlite", "journal", "postgresql")


@dataclass(frozen=True)
class Cell:
    """One run of one peer.

    `measure` is gap, report, throughput, start, target or step; `finished` are trials that the study has before,
    `trials` those of the run; `seconds` is the length of a trial that sleeps. Without `pruner` it is the peer's own;
    `sampler` is tpe, gp or random, and everybody's own where the digits are trained.
    """

    measure: str
    peer: str
    storage: str = "sqlite"
    workers: int = 1
    finished: int = 0
    trials: int = 8
    seconds: float = 0.0
    pruner: str = ""
    sampler: str = "tpe"
    seed: int = 0

    @property
    def row(self) -> Cell:
        """The setting, for all peers and seeds."""
        return replace(self, peer="", seed=0)

    def __str__(self) -> str:
        about = [self.measure, self.peer, self.storage, f"{self.workers} workers", f"{self.finished} finished"]
        more = self.pruner, "GP" if self.sampler == "gp" else "", f"seed {self.seed}" if self.seed else ""
        return ", ".join([*about, *filter(None, more)])


def plan(*, full: bool) -> list[Cell]:
    """The cells of a run, those first that matter most: a short run ends when its time is over."""
    return [*_full()] if full else [*_short()]


def _short() -> Iterator[Cell]:
    for storage in ("postgresql", "sqlite", "journal"):
        yield from _for(OPTUNA_KIND, _report(storage, "median", 10_000))
    yield from _for(PEERS, _gap("sqlite", 8, 0))
    for storage in ("postgresql", "journal", "sqlite"):
        # Alone: plain Optuna takes two minutes and more here, which only a full run has.
        yield from _for(("aimlhpo",), _gap(storage, 64, 10_000))
    yield from _for(OPTUNA_KIND, _gap("journal", 64, 1_000))
    for storage in ("postgresql", "sqlite", "journal"):
        yield from _for(OPTUNA_KIND, _throughput(storage, 16))
    yield from _for(OPTUNA_KIND, _step())
    yield from _for(PEERS, _start())
    yield from _for(PEERS, _report("sqlite", "asha", 0))
    yield from _target(seeds=1)
    yield from _for(OPTUNA_KIND, _gp_gap())


def _full() -> Iterator[Cell]:
    for storage in STORAGES:
        kin = OPTUNA_KIND if storage == "postgresql" else (*OPTUNA_KIND, "echo")
        for workers in (1, 8, 64):
            for finished in (0, 1_000, 10_000):
                peers = PEERS if storage == "sqlite" and finished == 0 else kin
                yield from _for(peers, _gap(storage, workers, finished))
        for pruner in ("median", "asha"):
            yield from _for(kin, _report(storage, pruner, 10_000))
        for workers in (1, 16, 64):
            yield from _for(kin, _throughput(storage, workers))
        yield from _for(OPTUNA_KIND, replace(_step(), storage=storage))
        yield from _for(OPTUNA_KIND, replace(_gp_gap(), storage=storage))
    for pruner in ("median", "asha"):
        yield from _for(PEERS, _report("sqlite", pruner, 0))
    yield from _for(PEERS, _start())
    yield from _target(seeds=5)


def _for(peers: tuple[str, ...], cell: Cell) -> Iterator[Cell]:
    yield from (replace(cell, peer=peer) for peer in peers)


def _gap(storage: str, workers: int, finished: int) -> Cell:
    """Trials longer than all workers need to sample one each, on two cores."""
    seconds, each = {1: (0.5, 20), 8: (1.5, 6), 64: (8.0, 4)}[workers]
    return Cell("gap", "", storage, workers, finished, trials=workers * each, seconds=seconds)


def _gp_gap() -> Cell:
    return replace(_gap("sqlite", 8, 1_000), seconds=12.0, trials=24, sampler="gp")


def _report(storage: str, pruner: str, finished: int) -> Cell:
    return Cell("report", "", storage, 1, finished, trials=2, pruner=pruner)


def _throughput(storage: str, workers: int) -> Cell:
    return Cell("throughput", "", storage, workers, trials=max(100, 12 * workers), pruner="none", sampler="random")


def _start() -> Cell:
    return Cell("start", "", "sqlite", 8, trials=8, seconds=600.0)


def _step() -> Cell:
    return Cell("step", "", "sqlite", 1, trials=3, pruner="median")


def _target(seeds: int) -> Iterator[Cell]:
    for seed in range(1, seeds + 1):
        yield from _for(PEERS, Cell("target", "", "sqlite", 4, trials=40, seed=seed))
