"""Seconds from a start to the first training, in a study of 10,000 trials of 100 reports and in one of a few trials.

`agent` is one that joins the study, as in a SLURM job; `command` is the whole command, which checks and loads the study
before. The objective imports nothing but aimlhpo, so that the difference of both studies is what a large one costs.

    python -m benchmarks.bench_start [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from aimlhpo.storage.open import open_storage
from benchmarks.big_study import big_project
from benchmarks.stores import KINDS, Stores
from tests.project import Project

BAR = 1.0  # seconds that a large study may take longer
SIZES = {"small": 10, "large": 10_000}
OBJECTIVE = """
import time
from pathlib import Path
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        begun = Path(__file__).parent / "begun.new"
        begun.write_text(str(time.monotonic()))
        begun.rename(begun.with_suffix(""))
        time.sleep(600)
"""

AGENT = """
import sys
from pathlib import Path
from aimlhpo.cli.live_view import make_view
from aimlhpo.config.load import load_target
from aimlhpo.launch.local import run_local

config = load_target(Path(sys.argv[1]))
run_local(config, make_view(config), 1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with Stores() as stores, tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            projects = {size: make(Path(folder) / f"{kind}-{size}", stores.url(kind, 0, 0), size) for size in SIZES}
            for name in ("command", "agent"):
                print(json.dumps({"storage": kind, "start": name, **compare(projects, name, rounds)}), flush=True)


def make(folder: Path, url: str, size: str) -> Project:
    """A study with so many finished trials, opened once: a journal has its snapshot."""
    project = big_project(folder, url, SIZES[size])
    (folder / "objective.py").write_text(OBJECTIVE)
    open_storage(url)
    return project


def compare(projects: Mapping[str, Project], name: str, rounds: int) -> dict[str, float]:
    """Medians over the rounds, the studies taking turns."""
    times: dict[str, list[float]] = {size: [] for size in projects}
    for _ in range(rounds):
        for size, project in projects.items():
            times[size].append(start(project, name))
    found = {size: round(statistics.median(each), 2) for size, each in times.items()}
    return {**found, "longer": round(found["large"] - found["small"], 2), "bar": BAR}


def start(project: Project, name: str) -> float:
    """Seconds until an objective trains; the study is stopped then, which gives the trial back."""
    begun = project.folder / "begun"
    begun.unlink(missing_ok=True)
    agent = [sys.executable, "-c", AGENT, str(project.save_path)]
    command = agent if name == "agent" else project.command("--local", "1", "-r", "1")
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait()
    return float(begun.read_text()) - started


if __name__ == "__main__":
    main()
