"""What the command objective adds to each trial, over the time of the program itself.

One program is run as a trial of a study (claimed, started, read, booked) and by hand with `subprocess.run`, turn and
turn about in batches of one run of this script. Of the study, the time from the first trial's start to the last one's
end is counted, per trial; so that everything between two trials is in it, and the start of the study is not.

    python -m benchmarks.bench_command [--trials 40] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import yaml

from aimlhpo.storage.open import open_storage

SCRIPT = """
import json, sys
x = float(sys.argv[1].partition("=")[2])
for epoch in range(5):
    print(json.dumps({"epoch": epoch, "val_loss": x}), flush=True)
"""


def by_hand(folder: Path, trials: int) -> float:
    """Seconds for each run of the program."""
    begin = time.monotonic()
    for _ in range(trials):
        subprocess.run([sys.executable, "train.py", "--x=0.5"], cwd=folder, check=True, capture_output=True)
    return (time.monotonic() - begin) / trials


def as_study(folder: Path, trials: int, storage: str) -> float:
    """Seconds for each trial that runs the program."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "model.yml").write_text("a: 1\n")
    settings = {
        "name": "s", "command": "{python} train.py {parameters}", "n_trials": trials, "save_path": "run",
        "storage": storage, "sampler": {"type": "RandomSampler"}, "pruner": {"type": "NopPruner"},
        "parameters": {"x": {"type": "float", "settings": {"low": 0.0, "high": 1.0}}},
    }  # fmt: skip
    (folder / "hyperparameters.yml").write_text(yaml.safe_dump({"optuna": settings}))
    command = [sys.executable, "-m", "aimlhpo", "optimize", "hyperparameters.yml", "model.yml"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return seconds_per_trial(storage)


def seconds_per_trial(url: str) -> float:
    """From the first trial's start to the last one's end, by trial: imports and start-up are left out."""
    trials = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    first, last = min(t.datetime_start for t in done), max(t.datetime_complete for t in done)
    return float((last - first).total_seconds() / len(done))


def measure(trials: int, kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(SCRIPT)
        before = by_hand(folder, trials // 2)
        study = as_study(folder / "study", trials, f"{kind}:///{folder}/study/storage")
        hand = (before + by_hand(folder, trials - trials // 2)) / 2
    return {"by_hand_ms": 1000 * hand, "study_ms": 1000 * study, "added_ms": 1000 * (study - hand)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--storages", nargs="+", default=["journal", "sqlite"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'storage':<10}{'by hand ms':>12}{'study ms':>10}{'added ms':>10}")
    for kind in arguments.storages:
        runs = [measure(arguments.trials, kind) for _ in range(arguments.repeats)]
        row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"storage": kind, **row, "runs": runs})
        print(f"{kind:<10}{row['by_hand_ms']:>12.1f}{row['study_ms']:>10.1f}{row['added_ms']:>10.1f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
