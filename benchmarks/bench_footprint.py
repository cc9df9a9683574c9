"""What a study takes: inodes and bytes in save_path for each trial, and the memory of agent and worker.

    python -m benchmarks.bench_footprint [--trials 10 1000] [--memory 10000] [--storages journal sqlite]

The trials report 10 values each. Memory is the most that a process has held (VmHWM), in a study of `--memory` trials of
100 reports each, of which one more is run. Beside the worker's stands what its objective alone takes to import.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from aimlhpo.storage.attributes import record_of
from benchmarks.big_study import big_project
from tests.project import Project

REPORTING = """
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        for step in range(10):
            trial.report(1.0, step)
        return {"val_loss": conf["model"]["x"]}
"""
MEASURING = """
from pathlib import Path
from aimlhpo import BaseObjective

def said(process, word):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(word))

def agent_above(process):
    while b"optimize" not in Path(f"/proc/{process}/cmdline").read_bytes():
        process = said(process, "PPid:")
    return process

class Objective(BaseObjective):
    def train(self, trial, conf):
        for step in range(10):
            trial.report(1.0, step)
        memory = {"worker": said("self", "VmHWM:") / 1024, "agent": said(agent_above("self"), "VmHWM:") / 1024}
        return {"val_loss": 1.0, **memory}
"""


def footprint(folder: Path) -> tuple[int, int]:
    """Inodes and bytes below a folder, its directories included."""
    entries = [folder, *folder.rglob("*")]
    return len(entries), sum(entry.stat().st_size for entry in entries if entry.is_file())


def files_of(kind: str, trials: int) -> tuple[int, int]:
    """Inodes and bytes of a study after that many trials."""
    with tempfile.TemporaryDirectory() as folder:
        storage = "journal" if kind == "journal" else f"sqlite:///{folder}/run/s.db"
        project = Project(Path(folder), textwrap.dedent(REPORTING), storage=storage, n_trials=trials)
        project.run("--local", "1")
        return footprint(project.save_path)


def bare_python() -> float:
    """MiB that a Python process takes which has imported what the objective imports."""
    code = "import aimlhpo; print([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def memory_of(kind: str, trials: int) -> dict[str, float]:
    """MiB of the agent and of a worker in a large study."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"journal://{folder}/s.journal" if kind == "journal" else f"sqlite:///{folder}/s.db"
        done = trials - trials // 50
        project = big_project(folder / "p", url, trials, 100, n_trials=done + 2)
        (project.folder / "objective.py").write_text(MEASURING)
        project.run("-r", "1", "--local", "1")
        metrics = record_of(project.study().trials[-1])["metrics"]
        return {name: float(metrics[name]) for name in ("agent", "worker")}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[10, 1000])
    parser.add_argument("--memory", type=int, default=10_000)
    parser.add_argument("--storages", nargs="+", choices=("journal", "sqlite"), default=["journal", "sqlite"])
    chosen = parser.parse_args(arguments)
    print(f"{'storage':<10}{'trials':>8}{'inodes':>8}{'per trial':>11}{'bytes per trial':>17}")
    for kind in chosen.storages:
        for trials in chosen.trials:
            inodes, size = files_of(kind, trials)
            print(f"{kind:<10}{trials:>8}{inodes:>8}{inodes / trials:>11.3f}{size / trials:>17.0f}", flush=True)
    bare = bare_python()
    print(f"\n{'storage':<10}{'trials':>8}{'agent MiB':>11}{'worker MiB':>12}{'its own share':>15}")
    for kind in chosen.storages:
        found = memory_of(kind, chosen.memory)
        own = found["worker"] - bare
        print(f"{kind:<10}{chosen.memory:>8}{found['agent']:>11.0f}{found['worker']:>12.0f}{own:>15.0f}", flush=True)


if __name__ == "__main__":
    main()
