"""Trials that share a GPU as far as it has room: recorded curves, and studies on a GPU that is played to them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.agent.packing import FEWEST_READINGS, GpuReading, trials_that_fit
from tests.project import Project

HERE = Path(__file__).parent
GIB = 1 << 30
QUICKLY = """
import itertools, sys
from aimlhpo.agent import packing, worker_pool
from aimlhpo.cli.main import main
packing.INTERVAL = 0.02
worker_pool.count_memory_kills = itertools.count().__next__  # whoever dies of SIGKILL was short of memory
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the check find the module, which it does not load."""
    monkeypatch.syspath_prepend(str(HERE / "fake_nvml"))


def readings(utilisation: float | None = 0.4, others: int = 0, number: int = FEWEST_READINGS) -> list[GpuReading]:
    return [GpuReading(80 * GIB, 0, utilisation, others=others * GIB) for _ in range(number)]


@pytest.mark.parametrize(
    ("largest", "running", "given", "fits"),
    [
        (20, 1, readings(), 2),
        (20, 2, readings(), 3),
        (20, 3, readings(), 3),  # 80 of 80 would leave nothing free
        (18, 3, readings(), 4),
        (1, 4, readings(), 4),  # as many as may
        (37, 1, readings(), 1),
        (20, 2, readings(others=15), 2),  # somebody else's process
        (20, 1, readings(0.79), 2),
        (20, 1, readings(0.81), 1),
        (20, 1, readings(0.5) + readings(1.0), 2),  # idle half of the time, as where data is loaded
        (20, 1, readings(None), 2),  # a MIG device does not say
        (20, 1, readings(number=FEWEST_READINGS - 1), 1),
        (20, 1, [], 1),
    ],
)
def test_how_many_trials_fit_is_found_in_what_was_measured(
    largest: int, running: int, given: list[GpuReading], fits: int
) -> None:
    assert trials_that_fit(given, largest * GIB, running, 4) == fits


class PlayedGpu:
    """A study on a GPU of 1000 MiB that is played to it."""

    def __init__(self, folder: Path, gpu: dict[str, Any], most: int = 4, **model: Any) -> None:
        (folder / "gpu.json").write_text(json.dumps({"total": 1000, "utilisation": [0, 20, 40, 60, 80], **gpu}))
        self.folder = folder
        self.project = Project(
            folder,
            HERE / "objectives" / "on_a_gpu.py",
            slurm={"trials_per_gpu": "auto", "max_trials_per_gpu": most},
            model={"curve": [100, 280, 250, 280], "needs": {}, "enough": 1, "collide": [], "loading": 0, **model},
            n_trials=9,
            gpu=True,
        )

    def run(self, expect: int = 0, gpus: str = "0") -> str:
        """Run it with readings in quick succession; returns what was printed."""
        path = os.pathsep.join((str(HERE / "fake_nvml"), str(HERE.parents[1])))
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus, "FAKE_NVML": str(self.folder), "PYTHONPATH": path}
        words = ["optimize", str(self.project.hyperparameters), str(self.project.model), "--local"]
        done = subprocess.run(
            [sys.executable, "-c", QUICKLY, *words],
            cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def together(self) -> list[int]:
        """How many trials each trial has seen run at the same time, where it is complete."""
        records = self.project.records()
        return [record["metrics"]["together"] for record in records if "together" in record["metrics"]]


def steps(printed: str) -> list[int]:
    """The numbers of trials at a time, as the agent tells them."""
    return [int(number) for number in re.findall(r"(\d+) (?:trials )?at a time from now on", printed)]


@pytest.mark.parametrize("hides_processes", [False, True])
def test_one_trial_after_the_other_is_added_while_the_memory_allows_it(tmp_path: Path, hides_processes: bool) -> None:
    played = PlayedGpu(tmp_path, {"hides_processes": hides_processes}, enough=3)
    assert steps(played.run()) == [2, 3]
    assert max(played.together()) == 3
    assert played.project.states() == {"COMPLETE": 9}
    shares = {round(record["gpus"], 3) for record in played.project.records()}
    assert {1.0, 0.5, 0.333} >= shares > {1.0}


@pytest.mark.parametrize(
    ("gpu", "most", "expected"),
    [
        ({}, 2, [2]),
        ({"utilisation": [0, 45, 90, 100, 100]}, 4, [2]),
        ({"utilisation": None}, 2, [2]),
        ({"forbids": True}, 2, [2]),
        ({"others": 310}, 4, [2]),
        ({"others": 400}, 4, []),
        ({"strangers": True}, 4, []),
        ({"utilisation": [0, 90, 90, 90, 90]}, 4, []),
    ],
)
def test_no_trial_is_added_beyond_the_limit_the_memory_and_the_utilisation(
    tmp_path: Path, gpu: dict[str, Any], most: int, expected: list[int]
) -> None:
    highest = max(expected, default=1)
    played = PlayedGpu(tmp_path, gpu, most, enough=highest, curve=[*[0] * 10, 100, *[280] * 20])
    assert steps(played.run()) == expected
    assert max(played.together()) == highest
    assert played.project.states() == {"COMPLETE": 9}


@pytest.mark.parametrize("killed", [False, True])
def test_running_out_of_memory_takes_one_away_and_samplers_learn_of_what_does_not_fit_alone(
    tmp_path: Path, killed: bool
) -> None:
    played = PlayedGpu(tmp_path, {}, 2, enough=2, needs={"3": 950, "5": 1200}, killed=killed)
    assert steps(played.run()) == [2, 1]
    records = played.project.records()
    assert played.project.states() == {"COMPLETE": 9, "FAIL": 1}
    assert "infeasible" not in records[3]
    assert records[5]["cause"] == "out of memory" + (": killed by the kernel" if killed else "")
    assert records[5]["infeasible"] is True
    assert [record["metrics"]["together"] for record in records[-3:]] == [1, 1, 1]
    assert len({record["worker"] for record in records[-3:]}) == 1


def test_trial_that_ran_out_of_memory_has_no_other_process_beside_it_and_costs_the_whole_gpu(tmp_path: Path) -> None:
    played = PlayedGpu(tmp_path, {}, 3, enough=3, needs={"4": 950})
    assert steps(printed := played.run()) == [2, 3, 2]
    assert "trial 4 has run out of the GPU's memory beside others" in printed
    assert played.project.states() == {"COMPLETE": 9}
    alone = played.project.records()[4]
    assert alone["metrics"]["processes"] == 0
    assert alone["gpus"] == 1
    # The attempt that ran out of memory had less than the whole of it, and counts.
    assert alone["gpu_seconds"] < alone["seconds"]


def test_one_collision_takes_one_slot_away_however_many_trials_ran_out_of_memory(tmp_path: Path) -> None:
    played = PlayedGpu(tmp_path, {}, 3, enough=3, collide=[4, 5])
    assert steps(printed := played.run()) == [2, 3, 2]
    assert printed.count("run out of the GPU's memory beside others") == 2
    assert played.project.states() == {"COMPLETE": 9}
    records = played.project.records()
    assert [(records[number]["metrics"]["processes"], records[number]["gpus"]) for number in (4, 5)] == [(0, 1), (0, 1)]


def test_slot_whose_worker_cannot_load_the_objective_beside_others_is_closed(tmp_path: Path) -> None:
    played = PlayedGpu(tmp_path, {}, 2, enough=3, loading=900)
    printed = played.run()
    assert steps(printed) == [2, 1]
    assert "could not load the objective beside others" in printed
    assert played.project.states() == {"COMPLETE": 9}


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        ({"broken": True}, "NVML does not answer (Driver Not Loaded)"),
        ({"exclusive": True}, "one process at a time"),
        ({"mig": True}, "name its devices by UUID"),
    ],
)
def test_gpu_that_cannot_be_measured_or_shared_runs_one_trial_at_a_time(
    tmp_path: Path, gpu: dict[str, Any], told: str
) -> None:
    played = PlayedGpu(tmp_path, gpu)
    printed = played.run()
    assert printed.count("trials_per_gpu: auto:") == 1
    assert told in printed
    assert set(played.together()) == {1}
    assert played.project.states() == {"COMPLETE": 9}


def test_gpu_that_cannot_be_read_keeps_none_of_the_others_from_being_shared(tmp_path: Path) -> None:
    played = PlayedGpu(tmp_path, {"utilisation": [20] * 5}, 2, enough=3)
    printed = played.run(gpus="1,0")
    assert steps(printed) == [2]
    assert "NVML cannot read GPU 1 (Invalid Argument); the number of trials on it stays as it is" in printed
    costs = {(record["device"], record["gpus"]) for record in played.project.records()}
    assert ("gpu 0", 0.5) in costs
    assert ("gpu 1", 0.5) not in costs
