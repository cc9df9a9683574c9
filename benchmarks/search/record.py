"""Records the learning curves that the benchmark of the search replays.

    python -m benchmarks.search.record [--only NAME ...] [--configurations 600] [--repeated 20] [--seeds 3]

Each training of `benchmarks.search.trainings` is run with random configurations, some of them with several seeds, one
process at a time. What comes of it is `benchmarks/search/tasks/NAME.npz`: see `benchmarks.search.task` for its arrays.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.task import TASKS, row_of
from benchmarks.search.trainings import TRAININGS, Training, drawn


def record(training: Training, configurations: int, repeated: int, seeds: int) -> dict[str, Any]:
    """The arrays of a task. A training that fails or diverges has NaN from there on."""
    random = np.random.default_rng(0)
    chosen = list(islice(drawn(training.space, random), configurations))
    runs = [(values, 0) for values in chosen]
    runs += [(values, seed) for values in chosen[:repeated] for seed in range(1, seeds)]
    curves, seconds = [], []
    training.train(*runs[0])  # the first one imports and loads
    for values, seed in runs:
        began = time.process_time()
        curves.append(training.train(values, seed))
        seconds.append(time.process_time() - began)
    y = np.array(curves, dtype=np.float32)
    return {
        "space": json.dumps(list(training.space)),
        "x": np.array([row_of(training.space, values) for values, _ in runs]).astype(np.float32),
        "y": y,
        "seconds": np.array(seconds, dtype=np.float32),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--configurations", type=int, default=600)
    parser.add_argument("--repeated", type=int, default=20, help="configurations that are run with several seeds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=TASKS)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    for name in options.only:
        began = time.monotonic()
        arrays = record(TRAININGS[name], options.configurations, options.repeated, options.seeds)
        np.savez_compressed(options.to / f"{name}.npz", **arrays)
        print(f"{name}: {arrays['y'].shape} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
