"""Trials that train on several nodes of a job."""

from __future__ import annotations

from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.several_nodes import COLLECTIVE, NodesStudy


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
    assert study.living() == []
