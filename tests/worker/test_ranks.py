"""One trial on several devices: rank 0 owns it, the other ranks take the same turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.worker import ranks
from tests.project import Project
from tests.waiting import wait_until

RANKS = Path(__file__).parent / "objectives" / "ranks.py"
SLURM = {"gpus_per_worker": 3}

COLLECTIVE = """
    import os, time
    from pathlib import Path
    import torch.distributed as dist
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            dist.init_process_group("gloo")
            pids = Path(__file__).parent / "pids"
            pids.mkdir(exist_ok=True)
            (pids / str(os.getpid())).touch()
            if dist.get_rank() != conf["raising"]:
                dist.barrier()
            Path(__file__).with_name("failed").write_text(str(time.time()))
            try:
                raise ValueError("cannot read the validation set")
            finally:
                if conf["leaves"]:  # as a framework does, which then takes its time
                    dist.destroy_process_group()
                    time.sleep(1)
"""


def project(folder: Path, at_the_end: str = "", **keys: object) -> Project:
    """A study whose ranks do what `at_the_end` names, in the words of objectives/ranks.py."""
    model = {"folder": str(folder), "at_the_end": at_the_end}
    return Project(folder, RANKS, slurm=dict(SLURM), model=model, pruning="strict", **keys)


def test_every_rank_runs_every_trial(tmp_path: Path) -> None:
    made = project(tmp_path, n_trials=2)
    made.run("--local", "1")
    assert made.states() == {"COMPLETE": 2}
    assert [record["metrics"]["size"] for record in made.records()] == [3, 3]
    for number in range(2):
        seen = [(tmp_path / f"{number}-{rank}").read_text().split() for rank in range(3)]
        assert len({pid for pid, _ in seen}) == 3
        assert len({port for _, port in seen}) == 1


@pytest.mark.parametrize(
    ("clients", "free"), [("32768\t60999\n", 32768 - 10000 + 4536), ("1024 65535", 55536), ("", 55536)]
)
def test_ranks_meet_where_the_kernel_sends_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clients: str, free: int
) -> None:
    (tmp_path / "range").write_text(clients)
    monkeypatch.setattr(ranks, "_CLIENTS", tmp_path / "range")
    assert len(ranks._ports_of_no_client()) == free
    assert ranks.free_port() in ranks._ports_of_no_client()


def test_ranks_learn_of_pruning(tmp_path: Path) -> None:
    made = project(tmp_path, n_trials=2, pruner={"type": "ThresholdPruner", "upper": 2.5})
    made.run("--local", "1")
    assert made.states() == {"COMPLETE": 1, "PRUNED": 1}
    assert {(tmp_path / f"1-{rank}").read_text() for rank in range(3)} == {"pruned at 2"}


def test_failing_rank_fails_the_trial_and_the_slot_lives(tmp_path: Path) -> None:
    made = project(tmp_path, "rank 2 fails", n_trials=1)
    made.run("--local", "1")
    assert made.states() == {"COMPLETE": 1, "FAIL": 1}
    assert made.records()[0]["cause"] == "rank 2: exception: ZeroDivisionError: division by zero"


def test_killed_rank_fails_the_trial_and_no_process_is_left(tmp_path: Path) -> None:
    made = project(tmp_path, "rank 1 dies", n_trials=1)
    made.run("--local", "1")
    assert made.records()[0]["cause"] == "rank 1: its process ended with exit code 9"
    pids = [(tmp_path / f"{number}-{rank}").read_text().split()[0] for number in range(2) for rank in range(3)]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the ranks' end")


@pytest.mark.parametrize(("raising", "leaves", "told"), [(0, False, ""), (1, True, "rank 1: ")])
def test_the_first_exception_is_the_cause_where_the_other_rank_waits_in_a_collective(
    tmp_path: Path, raising: int, leaves: bool, told: str
) -> None:
    """The other rank waits for ever; or loses the connection, and raises because of that, before the cause is told."""
    made = Project(tmp_path, COLLECTIVE, slurm={"gpus_per_worker": 2}, n_trials=1, max_consecutive_failures=1)
    made.model.write_text(f"model: {{x: 0.5}}\nraising: {raising}\nleaves: {leaves}\n")
    made.run("--local", "1", expect=4)
    record = made.records()[0]
    assert record["cause"] == f"{told}exception: ValueError: cannot read the validation set"
    assert "ValueError: cannot read" in record["error"]
    pids = [int(file.name) for file in (tmp_path / "pids").iterdir()]
    assert len(pids) >= 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the ranks' end")
    failed_at = float((tmp_path / "failed").read_text())
    assert made.study().trials[0].datetime_complete.timestamp() - failed_at < 10
