"""Each framework's own section of docs/frameworks.md, run as a study: one trial completes, and one is pruned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.project import Project

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"
GOOD, BAD = 0.05, 50.0
# Of a job with four tasks: whoever believes these waits for three others.
IN_A_JOB = {
    "SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "here", "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1",
    "SLURM_JOB_NODELIST": "here", "PMI_RANK": "0", "PMI_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://127.0.0.1:1",
    "TF_CONFIG": '{"cluster": {"worker": ["here:1", "there:1"]}, "task": {"type": "worker", "index": 0}}',
}  # fmt: skip


def section(title: str) -> str:
    """The objective of a section of the page."""
    found = re.search(rf"^## {title}\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("title", "ranks"),
    [("Lightning", 1), ("Lightning", 2), ("Hugging Face", 1), ("Hugging Face", 2), ("torch", 2), ("JAX", 1),
     ("JAX", 2), ("Keras", 2)],
)  # fmt: skip
def test_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str, ranks: int) -> None:
    for name, value in IN_A_JOB.items():
        monkeypatch.setenv(name, value)
    made = Project(
        tmp_path,
        section(title),
        slurm={"gpus_per_worker": ranks},
        n_trials=3,
        sampler={"type": "GridSampler", "search_space": {"lr": [GOOD, GOOD / 2, BAD]}},
        parameters={"lr": {"type": "categorical", "settings": {"name": "lr", "choices": [GOOD, GOOD / 2, BAD]}}},
        pruner={"type": "ThresholdPruner", "upper": 50.0},
        pruning="strict",
        max_consecutive_failures=1,
    )
    made.model.write_text(yaml.safe_dump({"lr": GOOD, "epochs": 2}))
    made.run("--local", "1")
    logs = "\n".join(log.read_text() for log in (made.save_path / "logs").iterdir())
    assert made.states() == {"COMPLETE": 2, "PRUNED": 1}, logs
    assert [trial.params["lr"] for trial in made.study().trials if trial.state.name == "PRUNED"] == [BAD]
    assert len(re.findall("(?i)requeue|Setting signal handlers", logs)) == 0
