"""Lightning on two ranks in a SLURM job; and where it asks for more devices than there are."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.frameworks.page import DIVERGING, ENDINGS, FIRST, SECOND, STUDY, section, write_model
from tests.project import Project
from tests.slurm.cluster import Cluster
from tests.slurm.study import SlurmStudy

# The page's objective, whose first trial stands still in its second epoch until it is interrupted.
STANDING_STILL = """
    import time
    from pathlib import Path

    def note_and_stand_still(self):
        notes, line = Path(__file__).parent / "notes", f"epoch {self.lr} {self.global_rank} {self.current_epoch}\\n"
        with open(notes, "a") as file:
            file.write(line)
        while (self.lr, self.current_epoch) == (FIRST, 1) and notes.read_text().count(line) == 1:
            time.sleep(0.05)

    Line.on_train_epoch_start = note_and_stand_still
"""


ONE_NODE = {"gpus_per_worker": 2, "batch": {"nodelist": "gpu1", "gres": "gpu:2", "ntasks": 2}}
TWO_NODES = {"nodes_per_worker": 2, "batch": {"nodelist": "gpu[1-2]", "nodes": 2, "gres": "gpu:1"}}


@pytest.mark.parametrize(
    "shape",
    [pytest.param(ONE_NODE, id="on one node"), pytest.param(TWO_NODES, id="on two nodes", marks=pytest.mark.slow)],
)
def test_two_ranks_in_a_job_are_pruned_preempted_and_resumed(
    cluster: Cluster, tmp_path: Path, shape: dict[str, Any]
) -> None:
    objective = section("Lightning") + dedent(STANDING_STILL.replace("FIRST", str(FIRST)))
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, **shape}, objective=objective, **STUDY)
    write_model(study)
    study.submit()
    cluster.wait_for(lambda: sum(note[::2] == [str(FIRST), "1"] for note in study.notes("epoch")) == 2, seconds=240)
    urgent = ("--partition=urgent", "--exclusive", "--nodelist=gpu1", "--output=/dev/null")
    cluster.sbatch(*urgent, "--wrap", "sleep 1", cwd=tmp_path)
    study.wait_for_end(300)

    logs = "\n".join(log.read_text() for log in (study.save_path / "logs").iterdir())
    assert {trial.params["lr"]: trial.state.name for trial in study.study().trials} == ENDINGS, logs
    assert "stopping: preempted" in study.logs()
    seen = sorted((float(lr), int(rank), int(epoch)) for lr, rank, epoch in study.notes("epoch"))
    expected = [(SECOND, 0), (SECOND, 1), (FIRST, 0), (FIRST, 1), (FIRST, 1), (DIVERGING, 0)]
    assert seen == sorted((lr, rank, epoch) for lr, epoch in expected for rank in (0, 1))
    assert "MEMBER: 2/2" in logs
    assert "auto-requeueing" not in logs


ASKING_FOR_TWO = """
    import os
    import lightning
    import pytorch_lightning
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            package, strategy = [
                (lightning, "ddp"), (lightning, "ddp_spawn"), (pytorch_lightning, "ddp"), (lightning, "ddp_spawn")
            ][trial.number]
            if trial.number == 3:
                os.environ["WORLD_SIZE"] = "2"  # as with gpus_per_worker: 2
            trainer = package.Trainer(accelerator="cpu", devices=2, strategy=strategy)
            trainer.strategy.launcher.launch(print)
            return {"val_loss": 1.0}
"""


def test_more_processes_than_the_slot_has_fail_the_trial_at_once_and_in_words(tmp_path: Path) -> None:
    made = Project(tmp_path, ASKING_FOR_TWO, n_trials=1, max_consecutive_failures=4)
    made.run("--local", "1", expect=4)
    records = made.records()[:4]
    too_many = (
        "the training asks for 2 devices where its slot has 1; "
        "`slurm: gpus_per_worker: 2` gives each trial so many, with a process for each"
    )
    beside = 'the training starts processes beside its 2 ranks; write strategy="ddp"'
    assert [record["cause"] for record in records] == [too_many, too_many, too_many, beside]
    assert max(record["seconds"] for record in records) < 10
