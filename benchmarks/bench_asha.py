"""What ASHA saves: the digits example with and without it, on the same configurations and the same number of workers.

All studies of one seed train the same random configurations, so that they differ in the pruner alone. Epochs are those
that were trained, over all trials; the accuracy is the best trial's on the validation split, which it is chosen by,
and on the test split, which no choice has seen.

    python -m benchmarks.bench_asha [--trials 54] [--epochs 27] [--seeds 1 2 3] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import yaml

from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.open import open_storage

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "asha" / "promotion.yml"
MODEL = ROOT / "examples" / "torch" / "model.yml"
NONE = "no pruning"
_ASHA = {"type": "ASHA", "max_resource": "trainer:epochs"}
PRUNERS: dict[str, dict[str, Any]] = {
    NONE: {"type": "NopPruner"},
    "median": {"type": "MedianPruner"},
    "ASHA, stopping": {**_ASHA, "mode": "stopping"},
    "ASHA, promotion": {**_ASHA, "mode": "promotion"},
    "Hyperband, promotion": {**_ASHA, "mode": "promotion", "brackets": 2},
}


@dataclass(frozen=True)
class Run:
    """One study; accuracies are the best trial's."""

    pruner: str
    seed: int
    trials: int
    complete: int
    epochs: int
    val_accuracy: float
    test_accuracy: float


def run(pruner: str, seed: int, trials: int, epochs: int, workers: int) -> Run:
    with tempfile.TemporaryDirectory() as name:
        storage = f"journal://{name}/journal"
        hyperparameters = Path(name) / "hyperparameters.yml"
        settings = yaml.safe_load(EXAMPLE.read_text())
        settings["optuna"] |= {
            "pruner": PRUNERS[pruner], "seed": seed, "n_trials": trials, "storage": storage,
            "objective": str(ROOT / settings["optuna"]["objective"]), "save_path": name,
        }  # fmt: skip
        hyperparameters.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "aimlhpo", "optimize", str(hyperparameters), str(MODEL)]
        command += [f"trainer:epochs={epochs}", "--local", str(workers)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        study = optuna.load_study(study_name=settings["optuna"]["name"], storage=open_storage(storage))
        return _measured(pruner, seed, study)


def _measured(pruner: str, seed: int, study: optuna.Study) -> Run:
    found = study.get_trials(deepcopy=False)
    complete = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in found)
    trained = sum(len(trial.intermediate_values) for trial in found)
    metrics = record_of(study.best_trial)["metrics"]
    return Run(pruner, seed, len(found), complete, trained, metrics["val_accuracy"], metrics["test_accuracy"])


def table(runs: Sequence[Run]) -> Iterable[str]:
    """Means over the seeds; the ratio is to the epochs without pruning."""
    whole = mean([one.epochs for one in runs if one.pruner == NONE] or [0])
    yield "| pruner | epochs | of those without | complete | val accuracy | test accuracy |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for pruner in dict.fromkeys(one.pruner for one in runs):
        mine = [one for one in runs if one.pruner == pruner]
        epochs = mean(one.epochs for one in mine)
        accuracies = " | ".join(
            _spread([getattr(one, f"{split}_accuracy") for one in mine]) for split in ("val", "test")
        )
        share = f"{epochs / whole:.0%}" if whole else "-"
        yield f"| {pruner} | {epochs:.0f} | {share} | {mean(one.complete for one in mine):.0f} | {accuracies} |"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=54)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pruners", nargs="+", default=list(PRUNERS), choices=list(PRUNERS), metavar="PRUNER")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs: list[Run] = []
    for seed in arguments.seeds:
        for pruner in arguments.pruners:
            runs.append(run(pruner, seed, arguments.trials, arguments.epochs, arguments.workers))
            print(json.dumps(asdict(runs[-1])), flush=True)
    print("\n".join(table(runs)))
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": [asdict(one) for one in runs]}, indent=2))


if __name__ == "__main__":
    main()
