"""Each framework's own section of docs/frameworks.md, run as a study: two trials complete, and one is pruned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.frameworks.page import ENDINGS, STUDY, section, write_model
from tests.project import Project

# Of a job with four tasks: whoever believes these waits for three others.
IN_A_JOB = {
    "SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "here", "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1",
    "SLURM_JOB_NODELIST": "here", "PMI_RANK": "0", "PMI_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://127.0.0.1:1",
    "TF_CONFIG": '{"cluster": {"worker": ["here:1", "there:1"]}, "task": {"type": "worker", "index": 0}}',
}  # fmt: skip


@pytest.mark.parametrize(
    ("title", "ranks"),
    [("Lightning", 2), ("Hugging Face", 2), ("torch", 2), ("JAX", 2), ("Keras", 2),
     *(pytest.param(title, 1, marks=pytest.mark.slow) for title in ("Lightning", "Hugging Face"))],
)  # fmt: skip
def test_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str, ranks: int) -> None:
    for name, value in IN_A_JOB.items():
        monkeypatch.setenv(name, value)
    made = Project(tmp_path, section(title), slurm={"gpus_per_worker": ranks}, **STUDY)
    write_model(made)
    made.run("--local", "1")
    logs = "\n".join(log.read_text() for log in (made.save_path / "logs").iterdir())
    assert {trial.params["lr"]: trial.state.name for trial in made.study().trials} == ENDINGS, logs
    assert not re.search("(?i)requeue|setting signal handlers", logs)
