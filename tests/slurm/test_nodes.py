"""Trials that train on several nodes of a job."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.command_project import CommandProject
from tests.slurm.cluster import Cluster
from tests.slurm.several_nodes import COLLECTIVE, EPOCHS, NodesStudy, parent_of


def test_trials_of_two_nodes_side_by_side(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {
        "jobs": 1,
        "nodes_per_worker": 2,
        "gpus_per_worker": 2,
        "batch": {"nodes": 4, "gres": "gpu:2", "cpus-per-task": 4},
    }
    study = NodesStudy(tmp_path, cluster, slurm, {"HOLD": 2}, COLLECTIVE, n_trials=4)
    study.submit()
    cluster.wait_for(lambda: len(study.lines("held")) == 8, "two trials with four ranks each", 120)
    study.go()
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 4}, study.worker_logs()
    assert {record["metrics"]["sum"] for record in study.records()} == {4.0}
    for number in range(4):
        starts = sorted((note for note in study.lines("start") if note.number == number), key=lambda note: note.rank)
        told = [note.more["told"] for note in starts]
        assert [one["RANK"] for one in told] == ["0", "1", "2", "3"]
        assert [one["LOCAL_RANK"] for one in told] == ["0", "1", "0", "1"]
        assert [one["GROUP_RANK"] for one in told] == [one["NODE_RANK"] for one in told] == ["0", "0", "1", "1"]
        assert {(one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"], one["GROUP_WORLD_SIZE"]) for one in told} == {
            ("4", "2", "2")
        }
        nodes = [one["SLURMD_NODENAME"] for one in told]
        assert nodes in (["gpu0"] * 2 + ["gpu1"] * 2, ["gpu2"] * 2 + ["gpu3"] * 2)
        assert {one["CUDA_VISIBLE_DEVICES"] for one in told} == {"0,1"}
        assert {one["OMP_NUM_THREADS"] for one in told} == {"2"}
        assert not any("SLURM_PROCID" in one for one in told)
        assert len({note.more["extra"] for note in starts}) == 1
    assert {note.more["told"]["SLURMD_NODENAME"] for note in study.lines("start")} == {f"gpu{n}" for n in range(4)}
    logs = [log.read_text() for log in (study.save_path / "logs").glob("worker-*-rank-*.log")]
    assert len(logs) == 6
    assert_nothing_left(study)


TWO_NODES: dict[str, Any] = {
    "nodes_per_worker": 2,
    "gpus_per_worker": 2,
    "batch": {"nodes": 2, "gres": "gpu:2", "cpus-per-task": 4},
}


def nodes_study(folder: Path, cluster: Cluster, n_trials: int, held: int, jobs: int = 1, **keys: object) -> NodesStudy:
    return NodesStudy(
        folder, cluster, {"jobs": jobs, **TWO_NODES}, {"HOLD": held}, COLLECTIVE, n_trials=n_trials, **keys
    )


def hold(study: NodesStudy, trials: int) -> list[int]:
    """Wait until all ranks of the first trials stand still; their processes."""
    study.cluster.wait_for(lambda: len(study.lines("held")) == 4 * trials, f"{trials} trials to be held", 150)
    return [note.pid for note in study.lines("held")]


def assert_gone(study: NodesStudy, pids: list[int], seconds: float = 30) -> None:
    study.cluster.wait_for(lambda: not set(pids) & set(study.living()), "the processes to end", seconds)


def assert_resumed(study: NodesStudy, trials: int) -> None:
    """Every trial ran once, from its checkpoint where it was interrupted, and nothing is left of it."""
    assert study.states() == {"COMPLETE": study.config.optuna.n_trials}, study.logs()
    epochs = [(note.number, note.more["epoch"]) for note in study.lines("epoch")]
    assert len(epochs) == len(set(epochs)) == study.config.optuna.n_trials * EPOCHS
    for number in range(trials):
        starts = [note.more["epoch"] for note in study.lines("start") if (note.number, note.rank) == (number, 0)]
        assert starts == [0, 1]
    assert_nothing_left(study)


def assert_nothing_left(study: NodesStudy) -> None:
    """No process of a trial is left on any node, and nothing that has started one."""
    with suppress(AssertionError):
        study.cluster.wait_for(lambda: study.processes() == {}, "the last processes to end", 30)
    assert study.processes() == {}


def test_a_node_down_and_a_job_preempted(cluster: Cluster, tmp_path: Path) -> None:
    study = nodes_study(tmp_path, cluster, n_trials=12, held=2, jobs=2)
    study.submit()
    pids = hold(study, 2)
    first, second = study.jobs()
    lost, taken = hosts(cluster, first.node)[1], hosts(cluster, second.node)[1]
    cluster.down_node(lost)
    urgent = ("--partition=urgent", "--exclusive", f"--nodelist={taken}", "--output=/dev/null")
    cluster.sbatch(*urgent, "--wrap", "sleep 1", cwd=tmp_path)
    assert_gone(study, pids)
    cluster.resume_node(lost)
    study.go()
    study.wait_for_end(300)
    assert_resumed(study, 2)


def hosts(cluster: Cluster, listed: str) -> list[str]:
    return cluster.run("scontrol", "show", "hostnames", listed).stdout.split()


def held_by(study: NodesStudy, number: int, seconds: float = 90) -> dict[int, int]:
    """The processes of the trial's newest attempt, by rank, once all of them stand still."""

    def found() -> dict[int, int]:
        return {note.rank: note.pid for note in study.lines("held") if note.number == number and note.pid in living}

    living: set[int] = set()

    def all_there() -> bool:
        living.clear()
        living.update(study.living())
        return len(found()) == 4

    study.cluster.wait_for(all_there, f"trial {number} to be held", seconds)
    return found()


def test_what_dies_on_another_node(cluster: Cluster, tmp_path: Path) -> None:
    study = nodes_study(tmp_path, cluster, n_trials=2, held=4, max_consecutive_failures=5)
    study.submit()
    killed = [held_by(study, 0)]
    began = time.monotonic()
    os.kill(killed[0][3], signal.SIGKILL)
    cluster.wait_for(lambda: study.states().get("FAIL") == 1, "trial 0 to fail", 30)
    assert time.monotonic() - began < 20
    killed.append(held_by(study, 1))
    os.kill(killed[1][0], signal.SIGKILL)
    cluster.wait_for(lambda: study.states().get("FAIL") == 2, "trial 1 to fail", 30)
    killed.append(held_by(study, 2))
    os.kill(parent_of(killed[2][2]), signal.SIGKILL)
    for pids in killed:
        assert_gone(study, list(pids.values()))
    study.go()
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 2, "FAIL": 2}, study.logs()
    causes = [record.get("cause") for record in study.records()]
    assert causes[:2] == ["rank 3: its process was killed by signal 9", "killed by signal 9"]
    assert study.records()[2]["attempts"] == 2
    assert "stopping: lost node gpu1" in study.logs()
    assert [note.more["epoch"] for note in study.lines("start") if (note.number, note.rank) == (2, 0)] == [0, 1]
    assert_nothing_left(study)


@pytest.mark.slow
def test_a_worker_on_another_node_than_its_agent(cluster: Cluster, tmp_path: Path) -> None:
    """Its death fails its trial alone; and where its node is gone, all trials of the job go on later."""
    slurm = {"jobs": 1, **TWO_NODES, "batch": {**TWO_NODES["batch"], "nodes": 4}}
    study = NodesStudy(tmp_path, cluster, slurm, {"HOLD": 3}, COLLECTIVE, n_trials=4)
    study.submit()
    hold(study, 2)
    far = next(note for note in study.lines("start") if note.more["told"]["SLURMD_NODENAME"] == "gpu2")
    first = held_by(study, far.number)
    os.kill(first[0], signal.SIGKILL)
    cluster.wait_for(lambda: study.states().get("FAIL") == 1, "its trial to fail", 30)
    second = held_by(study, 2)
    near = held_by(study, 1 - far.number)
    cluster.kill_node("gpu2")
    assert_gone(study, [*first.values(), *second.values(), *near.values()])
    cluster.resume_node("gpu2")
    study.go()
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 4, "FAIL": 1}, study.logs()
    assert study.records()[far.number]["cause"] == "killed by signal 9"
    assert [study.records()[number]["attempts"] for number in (1 - far.number, 2)] == [2, 2]
    assert_nothing_left(study)


@pytest.mark.slow
def test_all_ranks_prune_alike_and_go_on_after_the_walltime(cluster: Cluster, tmp_path: Path) -> None:
    pruner = {"type": "ThresholdPruner", "upper": 1.99}
    study = nodes_study(tmp_path, cluster, n_trials=3, held=1, pruner=pruner, pruning="strict")
    study.submit()
    pids = hold(study, 1)
    cluster.signal_batch(study.jobs()[0].id, signal.SIGUSR1)
    assert_gone(study, pids)
    study.go()
    study.wait_for_end()
    assert study.states() == {"PRUNED": 3}, study.worker_logs()
    assert "stopping: walltime" in study.logs()
    for number, trial in enumerate(study.study().trials):
        pruned = [(note.rank, note.more["epoch"]) for note in study.lines("pruned") if note.number == number]
        assert sorted(pruned) == [(rank, max(trial.intermediate_values)) for rank in range(4)]
    assert study.records()[0]["attempts"] == 2
    assert_nothing_left(study)


@pytest.mark.slow
def test_cancelled_jobs_and_killed_agents_leave_nothing_behind(cluster: Cluster, tmp_path: Path) -> None:
    """Here the worker is on another node than its agent, too."""
    slurm = {"jobs": 1, **TWO_NODES, "batch": {**TWO_NODES["batch"], "nodes": 4}}
    study = NodesStudy(tmp_path, cluster, slurm, {"HOLD": 2}, COLLECTIVE, n_trials=3)
    study.submit()
    hold(study, 2)
    os.kill(study.agent(), signal.SIGKILL)
    assert_nothing_left(study)
    study.verb("submit")
    held_by(study, 0)
    held_by(study, 1)
    study.verb("stop", "--yes")
    assert_nothing_left(study)
    assert study.states().keys() == {"WAITING"}  # one of them was claimed ahead


RANKS_OF_A_PROGRAM = """
    import json, os, sys
    from pathlib import Path
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.ones(())
    dist.all_reduce(total)
    node = os.environ["SLURMD_NODENAME"]
    Path(f"{os.environ['AIMLHPO_TRIAL']}-{dist.get_rank()}").write_text(f"{node} {os.environ['LOCAL_RANK']}")
    if dist.get_rank() == 0:
        print(json.dumps({"val_loss": float(total)}))
    dist.destroy_process_group()
"""
EACH_RANK = "{python} train.py {parameters}"
TORCHRUN = (
    "{python} -m torch.distributed.run --nnodes={nnodes} --node_rank={node_rank} --nproc_per_node=2 "
    "--master_addr={master_addr} --master_port={master_port} train.py {parameters}"
)


@pytest.mark.slow
@pytest.mark.parametrize("command", [TORCHRUN, EACH_RANK], ids=["torchrun", "each rank"])
def test_programs_on_two_nodes(cluster: Cluster, tmp_path: Path, command: str) -> None:
    slurm = {"jobs": 1, **TWO_NODES}
    made = CommandProject(tmp_path, RANKS_OF_A_PROGRAM, command, slurm=slurm, n_trials=1, storage="journal")
    made.run("--wait", env={**cluster.env, "HOME": str(tmp_path)})
    assert made.states() == {"COMPLETE": 1}, made.log()
    assert made.records()[0]["metrics"]["val_loss"] == 4.0
    told = [(tmp_path / f"0-{rank}").read_text() for rank in range(4)]
    assert told == ["gpu0 0", "gpu0 1", "gpu1 0", "gpu1 1"]


@pytest.mark.slow
def test_the_example_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    example = Path("examples/data_parallel")
    files = (str(example / "two-nodes.yml"), str(example / "model.yml"))
    # Pretended GPUs: what the example computes with is the CPU.
    command = [
        sys.executable,
        "optimize.py",
        *files,
        "-s",
        str(tmp_path / "run"),
        "-t",
        "2",
        "--wait",
        "optuna:storage=journal",
    ]
    done = cluster.run(*command, timeout=240, check=False)
    logs = "\n".join(file.read_text() for file in (tmp_path / "run" / "logs").glob("*"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert {float(row["ranks"]) for row in rows if row["state"] == "COMPLETE"} == {4.0}, rows
