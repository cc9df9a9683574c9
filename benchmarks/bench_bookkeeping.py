"""Seconds of bookkeeping per trial: aimlhpo beside plain `study.optimize`, on the same storages, in one run.

The objective does nothing but report 5 values; the sampler is random. What is measured is the time from the first
trial's start to the last one's end, divided by the number of trials, so that imports and start-up are left out.

    python benchmarks.bench_bookkeeping.py [--trials 200] [--workers 1 16] [--storages sqlite journal postgresql]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import yaml

from aimlhpo.storage import open_storage
from tests.servers import PostgreSQL

OBJECTIVE = """
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        for step in range(5):
            trial.report(1.0, step)
        return {"val_loss": conf["x"]}
"""

PLAIN = """
import sys
import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from benchmarks.bench_bookkeeping import plain_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    for step in range(5):
        trial.report(1.0, step)
    return x

study = optuna.load_study(
    study_name="s", storage=plain_storage(sys.argv[1]), sampler=optuna.samplers.RandomSampler(),
    pruner=optuna.pruners.NopPruner(),
)
study.optimize(objective, callbacks=[MaxTrialsCallback(int(sys.argv[2]), states=(TrialState.COMPLETE,))])
"""


def plain_storage(url: str) -> optuna.storages.BaseStorage | str:
    """The storage as Optuna's own documentation opens it."""
    if url.startswith("journal://"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal://"))
        return optuna.storages.JournalStorage(backend)
    return url.replace("postgresql://", "postgresql+psycopg://")


def run_plain(url: str, trials: int, workers: int) -> float:
    optuna.create_study(study_name="s", storage=plain_storage(url))
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, url, str(trials)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(workers)]
    for process in processes:
        process.wait()
    return seconds_per_trial(url)


def run_aimlhpo(url: str, trials: int, workers: int, folder: Path) -> float:
    (folder / "objective.py").write_text(OBJECTIVE)
    (folder / "model.yml").write_text("x: 0.5\n")
    settings = {
        "name": "s", "storage": url, "objective": "objective.py", "metric": "val_loss", "n_trials": trials,
        "save_path": str(folder / "run"), "sampler": {"type": "RandomSampler"}, "pruner": {"type": "NopPruner"},
        "parameters": {"x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}}},
    }  # fmt: skip
    (folder / "hyperparameters.yml").write_text(yaml.safe_dump({"optuna": settings}))
    command = [sys.executable, "-m", "aimlhpo", "optimize", "hyperparameters.yml", "model.yml", "--local", str(workers)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return seconds_per_trial(url)


def seconds_per_trial(url: str) -> float:
    trials = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    first, last = min(t.datetime_start for t in done), max(t.datetime_complete for t in done)
    return float((last - first).total_seconds() / len(done))


@contextmanager
def urls(kind: str) -> Iterator[tuple[str, str]]:
    """Two fresh storages of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "postgresql":
            with PostgreSQL() as server:
                yield server.url(), server.url()
        else:
            ending = "db" if kind == "sqlite" else "journal"
            yield f"{kind}:///{folder}/a.{ending}", f"{kind}:///{folder}/b.{ending}"


def measure(kind: str, trials: int, workers: int) -> dict[str, object]:
    with urls(kind) as (plain, ours), tempfile.TemporaryDirectory() as folder:
        baseline = run_plain(plain, trials, workers)
        seconds = run_aimlhpo(ours, trials, workers, Path(folder))
    return {"storage": kind, "workers": workers, "optuna": baseline, "aimlhpo": seconds, "ratio": seconds / baseline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--storages", nargs="+", default=["sqlite", "journal", "postgresql"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'storage':<12}{'workers':>8}{'optuna ms':>11}{'aimlhpo ms':>12}{'ratio':>7}")
    for workers in arguments.workers:
        for kind in arguments.storages:
            runs = [measure(kind, arguments.trials, workers) for _ in range(arguments.repeats)]
            row = sorted(runs, key=lambda run: float(str(run["ratio"])))[len(runs) // 2]
            ratio = statistics.median(float(str(run["ratio"])) for run in runs)
            rows.append(row)
            print(
                f"{kind:<12}{workers:>8}{1000 * float(str(row['optuna'])):>11.1f}"
                f"{1000 * float(str(row['aimlhpo'])):>12.1f}{ratio:>7.2f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
