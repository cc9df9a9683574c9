"""How long many workers wait for a claim on one storage, and how evenly: beside `study.ask` of plain Optuna.

    python -m benchmarks.bench_claims [--workers 64] [--seconds 20] [--storages sqlite journal postgresql]

Every worker is a process with a ledger of its own, as if each were an agent; it claims a trial, finishes it, and so on
without a pause, so that all of them always wait for each other. All begin at once, when every one has opened the study.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import optuna

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.ledger import Ledger
from aimlhpo.ledger.requests import Claim, ClaimRequest, LedgerBatch, Result
from aimlhpo.search.stopping import ConsecutiveFailures, StoppingCriteria
from aimlhpo.storage.base import backend_of, new_token, own
from aimlhpo.storage.open import open_storage
from benchmarks.notes import quantiles
from benchmarks.stores import KINDS, Stores

Begin = Callable[[str, Path, str], Iterator[float]]


def ours(url: str, folder: Path, name: str) -> Iterator[float]:
    """Seconds that each claim takes, one trial after the other."""
    paths = StudyPaths(folder, "s")
    study = optuna.load_study(study_name="s", storage=own(open_storage(url)))
    backend = backend_of(study._storage)
    failures = ConsecutiveFailures(10, partial(backend.latest_ends, study._study_id))  # the rule that each study has
    criteria = StoppingCriteria(study, [failures])
    ledger = Ledger(study, paths, None, name, Registry(paths.leases, 60.0), stopping_criteria=criteria)
    while True:
        begun = time.perf_counter()
        request = ClaimRequest(new_token(), 0, "cpu", since=time.time())
        claim = ledger.process(LedgerBatch(claim_requests=[request])).claims[request.token]
        yield time.perf_counter() - begun
        if isinstance(claim, Claim):
            result = Result(name, claim.trial_id, claim.number, claim.token, "COMPLETE", [1.0], {}, [])
            ledger.process(LedgerBatch([result]))


def plain(url: str, folder: Path, name: str) -> Iterator[float]:
    """The same with Optuna's own calls."""
    study = optuna.load_study(study_name="s", storage=_storage(url))
    while True:
        begun = time.perf_counter()
        trial = study.ask()
        yield time.perf_counter() - begun
        study.tell(trial, 1.0)


def _storage(url: str) -> optuna.storages.BaseStorage | str:
    if url.startswith("journal://"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal://"))
        return optuna.storages.JournalStorage(backend)
    return url.replace("postgresql://", "postgresql+psycopg://")


def _work(begin: Begin, url: str, folder: Path, name: str, seconds: float, connection: Connection) -> None:
    """Sends the claims' seconds, and whether the worker died of an error; both of its waits are for the others."""
    found, died, waits = list[float](), False, begin(url, folder, name)
    try:
        next(waits)
    except Exception:  # noqa: BLE001  a worker that dies is a figure here
        died = True
    connection.send("ready")
    connection.recv()
    end = time.monotonic() + seconds
    try:
        while not died and time.monotonic() < end:
            found.append(next(waits))
    except Exception:  # noqa: BLE001
        died = True
    connection.send((found, died))


def measure(begin: Begin, url: str, workers: int, seconds: float) -> tuple[list[float], int]:
    """Seconds of all claims of all workers, and how many of these died of an error of the storage."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        StudyPaths(Path(name), "s").create()
        storage = _storage(url) if begin is plain else open_storage(url)
        optuna.create_study(study_name="s", storage=storage)
        context, ends = multiprocessing.get_context("fork"), []
        for number in range(workers):
            mine, theirs = context.Pipe()
            with theirs:
                arguments = (begin, url, Path(name), f"agent{number}", seconds, theirs)
                context.Process(target=_work, args=arguments, daemon=True).start()
            ends.append(mine)
        for end in ends:
            end.recv()
        for end in ends:
            end.send("go")
        said = [end.recv() for end in ends]
        return [wait for found, _ in said for wait in found], sum(died for _, died in said)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--storages", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = parser.parse_args(arguments)
    heads = f"{'median ms':>11}{'p99 ms':>9}{'p99 / median':>14}{'longest ms':>12}{'died':>6}"
    print(f"{'storage':<12}{'library':<14}{'claims':>8}{heads}")
    with Stores() as stores:
        for kind in chosen.storages:
            for name, begin in (("aimlhpo", ours), ("plain Optuna", plain)):
                _line(kind, name, *measure(begin, stores.url(kind, 0, 0), chosen.workers, chosen.seconds))


def _line(kind: str, name: str, waits: list[float], died: int) -> None:
    found = quantiles(waits)
    median, high, longest = (1000 * value for value in (found["median"], found["p99"], max(waits)))
    figures = f"{median:>11.1f}{high:>9.1f}{high / median:>14.1f}{longest:>12.1f}{died:>6}"
    print(f"{kind:<12}{name:<14}{len(waits):>8}{figures}", flush=True)


if __name__ == "__main__":
    main()
