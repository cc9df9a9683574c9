"""The most memory that each trial has taken, as it is kept with it and shown."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo import open_study
from tests.command_project import CommandProject
from tests.project import Project

MIB = 1 << 20
FIRST_IS_LARGE = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            taken = bytearray((300 if trial.number == 0 else 1) << 20)
            return {"val_loss": 1.0}
"""
ON_A_GPU = """
    import sys
    from types import SimpleNamespace
    from aimlhpo import BaseObjective

    class OutOfMemoryError(RuntimeError):
        pass

    class Cuda:
        # As torch's: what a process has taken at most, of two GPUs, until that is reset.
        peaks = None

        def is_initialized(self):
            return self.peaks is not None

        def device_count(self):
            return 2

        def max_memory_allocated(self, device):
            return self.peaks[device]

        def reset_peak_memory_stats(self, device):
            self.peaks[device] = 0

        def allocate(self, mib):
            self.peaks = self.peaks or [0, 0]
            self.peaks[1] = max(self.peaks[1], mib << 20)

    class Objective(BaseObjective):
        def train(self, trial, conf):
            cuda = sys.modules.setdefault("torch", SimpleNamespace(cuda=Cuda())).cuda
            if trial.number > 0:
                cuda.allocate({1: 700, 2: 900, 3: 50}[trial.number])
            if trial.number == 2:
                raise OutOfMemoryError("CUDA out of memory")
            return {"val_loss": 1.0}
"""
LARGE_CHILD = """
    import json, subprocess, sys
    large = sys.argv[1] == "0"
    subprocess.run([sys.executable, "-c", f"taken = bytearray({300 if large else 1} << 20)"], check=True)
    print(json.dumps({"val_loss": 1.0}), flush=True)
    sys.exit("CUDA out of memory" if large else 0)
"""


@pytest.fixture
def forgets_peaks() -> None:
    """Where the kernel, or the container, refuses that, no peak of a worker is known."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"a process's peak cannot be forgotten here: {error}")


@pytest.mark.usefixtures("forgets_peaks")
def test_peak_of_a_trial_does_not_count_for_the_next_one_of_the_worker(tmp_path: Path) -> None:
    project = Project(tmp_path, FIRST_IS_LARGE, n_trials=3)
    project.run("--local", "1")
    first, *others = [record["peak_memory_mb"] for record in project.records()]
    assert all(10 < other < first - 200 for other in others)
    with (project.save_path / "results.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["peak_memory_mb"]) for row in rows] == [first, *others]
    assert "peak_gpu_memory_mb" not in rows[0]  # nobody knows any
    assert list(open_study(project.save_path).trials["peak_memory_mb"]) == [first, *others]
    command = [sys.executable, "-m", "aimlhpo", "top", str(project.save_path)]
    header, *shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    assert "peak_memory_mb" in header
    assert "peak_gpu_memory_mb" not in header
    assert any(f" {first:.0f} " in line for line in shown)


def test_peak_on_the_gpu_is_known_where_torch_uses_one_also_of_a_trial_that_ran_out_of_memory(tmp_path: Path) -> None:
    project = Project(tmp_path, ON_A_GPU, n_trials=3)
    project.run("--local", "1")
    peaks = [record.get("peak_gpu_memory_mb") for record in project.records()]
    assert peaks == [None, 700, 900, 50]
    assert project.records()[2]["cause"] == "out of memory"


NAMED = """
    import ctypes
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            name = ("x" * 14 + chr(228)).encode()  # Linux keeps 15 bytes: half of the last letter
            ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
            return {"val_loss": 1.0}
"""


@pytest.mark.usefixtures("forgets_peaks")
def test_result_counts_whatever_the_trial_has_named_its_process(tmp_path: Path) -> None:
    project = Project(tmp_path, NAMED, n_trials=2)
    project.run("--local", "1")
    assert project.states() == {"COMPLETE": 2}
    assert all(record["peak_memory_mb"] > 10 for record in project.records())


def test_peak_of_a_program_is_that_of_its_largest_process(tmp_path: Path) -> None:
    project = CommandProject(tmp_path, LARGE_CHILD, "{python} train.py {trial} {x}", n_trials=2)
    project.run("--local", "1")
    large, *others = project.records()
    assert large["cause"] == "out of memory"
    assert large["peak_memory_mb"] > 300
    assert all(0 < other["peak_memory_mb"] < 200 for other in others)
