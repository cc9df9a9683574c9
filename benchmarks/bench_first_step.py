"""Seconds from the command to the first training step with torch: aimlhpo beside plain Optuna.

Both run the same training in a new study in an SQLite file, with one worker: aimlhpo as `aimlhpo optimize --local 1`,
plain Optuna as a script that does `study.optimize`. They take turns, so that a busy machine slows both; each round
gives a ratio of its own, and the median of these is held against the bar. While torch is imported, aimlhpo's own work
needs a second processor: where others use it, the ratio is larger.

    python -m benchmarks.bench_first_step [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.project import Project

BAR = 1.1
TRAINING = Path(__file__).parent / "programs" / "first_step"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ours, plain = [], []
    measure(optuna_command)  # so that the files of both are in the page cache, and compiled
    measure(aimlhpo_command)
    for _ in range(rounds):
        plain.append(measure(optuna_command))
        ours.append(measure(aimlhpo_command))
        print(json.dumps({"aimlhpo": round(ours[-1], 2), "optuna": round(plain[-1], 2)}), flush=True)
    ratio = statistics.median(mine / other for mine, other in zip(ours, plain, strict=True))
    medians = {"aimlhpo": round(statistics.median(ours), 2), "optuna": round(statistics.median(plain), 2)}
    print(json.dumps({"medians": medians, "ratio": round(ratio, 2), "bar": BAR}))


def measure(command: Callable[[Path], list[str]]) -> float:
    """Seconds from the start of a command to the end of its first training step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = command(folder)
        started = time.monotonic()
        subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return float((folder / "stepped").read_text()) - started


def aimlhpo_command(folder: Path) -> list[str]:
    objective = (TRAINING / "objective.py").read_text()
    (folder / "training.py").write_text((TRAINING / "training.py").read_text())
    return Project(folder, objective, name="s.db", n_trials=1, sampler={"type": "TPESampler"}).command("--local", "1")


def optuna_command(folder: Path) -> list[str]:
    return [sys.executable, str(TRAINING / "plain_optuna.py"), str(folder)]


if __name__ == "__main__":
    main()
