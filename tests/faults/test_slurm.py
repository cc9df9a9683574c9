"""Whatever happens to the jobs of a study on SLURM, it ends with exactly its trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import slurm
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.faults


def test_cancelled_and_killed_jobs(cluster: Cluster, tmp_path: Path) -> None:
    scene = slurm.FaultyCluster(tmp_path, cluster, n_trials=16)
    scene.study.submit()
    for fault in (scene.scancel, scene.node_killed, scene.node_down):
        scene.inject(fault)
    scene.let_end(240)
    verdict = scene.judge("cancelled, node killed, node down")
    assert verdict.clean, (verdict, scene.study.logs())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_that_can_befall_jobs(cluster: Cluster, tmp_path: Path) -> None:
    verdict = slurm.cluster_faults(tmp_path, cluster, rounds=2, n_trials=60)
    assert verdict.clean, verdict
