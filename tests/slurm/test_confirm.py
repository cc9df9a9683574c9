"""A confirmation as SLURM jobs, which are killed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

from aimlhpo.results.best import ranking
from aimlhpo.search.queues import find_confirmation
from aimlhpo.storage.trials import CONFIRMED
from tests.cli.studies import fill_study
from tests.slurm.cluster import Cluster
from tests.slurm.study import EPOCHS, SlurmStudy

ASKED = ("--top", "3", "--seeds", "2")


def test_after_jobs_were_killed_every_training_is_counted_once(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2}, {"STILL": 2}, n_trials=5)
    best = ranking(fill_study(study, 5), 3)
    said = study.verb("confirm", *ASKED)
    assert "2 jobs submitted" in said
    searched, study.save_path = study.save_path, study.save_path / "confirm"  # the jobs are those of the confirmation
    cluster.wait_for(lambda: study.stands_still(2), "both jobs to train")
    for job in study.jobs():
        cluster.signal_batch(job.id, signal.SIGKILL)
    cluster.wait_for_end(study.array)
    killed, study.save_path = study.array, searched
    assert "proven   trial " in study.verb("confirm", *ASKED, "--wait")
    assert study.finished() == 5
    study.save_path = searched / "confirm"
    assert study.array > killed

    confirmation = find_confirmation(study.study())
    assert confirmation is not None
    marks = [trial.system_attrs[CONFIRMED] for trial in confirmation.trials]
    assert Counter(mark["trial"] for mark in marks) == {trial.number: 2 for trial in best}
    assert {trial.state.name for trial in confirmation.trials} == {"COMPLETE"}
    epochs = [tuple(map(int, words)) for words in study.notes("epoch")]
    assert len(epochs) == len(set(epochs)) == 6 * EPOCHS  # none was trained twice
    text = (searched / "best.yml").read_text()  # written by the last job
    assert f"# trial: {best[0].number}\n# val_loss: {best[0].value}\n# confirmed: mean " in text
    study.save_path = searched
    assert "6 of 6 trainings complete" in study.verb("confirm", *ASKED, expect=3)
    assert json.loads(study.verb("confirm", "--json"))["winner"] == best[0].number


def test_asking_again_while_jobs_are_at_work_submits_no_others(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 4}, {"STILL": 1}, n_trials=3)
    fill_study(study, 3)
    planned = study.verb("confirm", "--top", "1", "--seeds", "2", "--dry-run")
    assert "2 trainings are left of 2" in planned
    assert "#SBATCH" in planned
    assert "2 jobs submitted" in study.verb("confirm", "--top", "1", "--seeds", "2")  # no more than trainings
    study.save_path = study.save_path / "confirm"
    cluster.wait_for(study.stands_still)
    array = study.array
    study.save_path = study.save_path.parent
    said = study.verb("confirm", "--top", "1", "--seeds", "2")
    assert "at work on it" in said
    study.save_path = study.save_path / "confirm"
    assert study.array == array
