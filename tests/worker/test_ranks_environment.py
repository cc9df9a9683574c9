"""What trainings find in their environment: torchrun's variables in each rank, and nothing of the job's tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.worker.ranks import rank_environment
from tests.project import Project

# What a job with four tasks, a step in it, and a framework that had started processes have left.
TASKS = {
    "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    "SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_STEP_NODELIST": "here",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_TASK_PID": "1", "SLURM_GTIDS": "0", "SLURM_TRES_PER_TASK": "cpu:1",
    "SLURM_SRUN_COMM_PORT": "1", "SLURM_CPU_BIND": "quiet", "PMI_RANK": "0", "PMI2_RANK": "0", "PMIX_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://127.0.0.1:1", "MV2_COMM_WORLD_RANK": "0",
    "TF_CONFIG": "{}", "JAX_COORDINATOR_ADDRESS": "here:1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4",
    "NODE_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
# What describes the job alone, and what people set to tune a library.
KEPT = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_TASKS_PER_NODE": "4", "OMPI_MCA_btl": "self", "PMIX_MCA_gds": "hash", "NCCL_DEBUG": "INFO",
}  # fmt: skip
NOTING = """
    import json, os
    from pathlib import Path
    from aimlhpo import BaseObjective

    at_import = dict(os.environ)
    os.environ["OMPI_COMM_WORLD_NODE_RANK"] = "own"

    class Objective(BaseObjective):
        def train(self, trial, conf):
            here = dict(os.environ)
            note = Path(__file__).parent / f"{trial.number}-{here.get('RANK')}"
            note.write_text(json.dumps([at_import, here]))
            os.environ.update(NODE_RANK="0", TORCHELASTIC_RUN_ID="left behind")  # as Lightning's launcher does
            return {"val_loss": 1.0}
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_finds_its_ranks_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    for name, value in {**TASKS, **KEPT}.items():
        monkeypatch.setenv(name, value)
    Project(tmp_path, NOTING, n_trials=2, slurm={"gpus_per_worker": ranks}).run("--local", "1")
    given = [rank_environment(rank, ranks, 0) if ranks > 1 else {} for rank in range(ranks)]
    for trial in range(2):
        for rank in range(ranks):
            note = tmp_path / f"{trial}-{rank if ranks > 1 else None}"
            at_import, in_train = json.loads(note.read_text())
            assert in_train["OMPI_COMM_WORLD_NODE_RANK"] == "own"
            for found in (at_import, in_train):
                assert {name: found.get(name) for name in KEPT} == KEPT
                told = {name: found[name] for name in {*TASKS, *rank_environment(0, 2, 0)} & found.keys()}
                assert told.keys() == given[rank].keys()
                assert {**told, "MASTER_PORT": "0"} == {**given[rank], "MASTER_PORT": "0"}


def test_ranks_find_what_torchrun_gives(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "Path(sys.argv[1], os.environ['RANK']).write_text(json.dumps(dict(os.environ)))\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    clean = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *torchrun], env=clean, check=True, capture_output=True, timeout=120)
    found = json.loads((tmp_path / "1").read_text())
    ours = rank_environment(1, 2, 29500)
    for_the_launcher = {"TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_SIGNALS_TO_HANDLE", "LC_CTYPE"}
    assert found.keys() - clean.keys() - for_the_launcher == ours.keys()
    free = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"}
    assert {name: found[name] for name in ours.keys() - free} == {name: ours[name] for name in ours.keys() - free}
