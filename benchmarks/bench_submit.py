"""Seconds from the command's start to the submitted array: 100 jobs, one sbatch, on a SLURM of this machine's own.

The objective imports nothing but aimlhpo; what a real one imports (torch: seconds) comes on top, because the command
tries the objective out before it spends anybody's turn on the cluster.

    python -m benchmarks.bench_submit [--jobs 100] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.study import SlurmStudy

BAR = 3.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        times = [measure(Path(folder) / str(number), cluster, arguments.jobs) for number in range(arguments.rounds)]
    row = {"jobs": arguments.jobs, "median": statistics.median(times), "longest": max(times), "bar": BAR}
    print("command to submitted array of {jobs}: median {median:.2f} s, longest {longest:.2f} s".format(**row))
    print(json.dumps(row))


def measure(folder: Path, cluster: Cluster, jobs: int) -> float:
    """Submit one study whose jobs are held, so that nothing but the submission runs."""
    folder.mkdir()
    study = SlurmStudy(folder, cluster, {"jobs": jobs, "batch": {"hold": True}}, n_trials=jobs)
    began = time.perf_counter()
    study.submit()
    seconds = time.perf_counter() - began
    cluster.scancel(study.array)
    return seconds


if __name__ == "__main__":
    main()
