"""Studies whose jobs are of two kinds, on a real SLURM."""

from __future__ import annotations

import csv
from pathlib import Path

from aimlhpo.launch.slurm.queue import recorded_arrays
from tests.slurm.cluster import Cluster, Job
from tests.slurm.study import SlurmStudy
from tests.slurm.test_keep import ENDED, KeptStudy, element

WORKERS = 3
GATED = f"""
    import os, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    HERE = Path(__file__).parent

    class Objective(BaseObjective):
        ended = False

        def train(self, trial, conf):
            # The first trial of each worker waits for the others' first, its second one for the test.
            (HERE / f"worker-{{os.getpid()}}").touch()
            while len(list(HERE.glob("worker-*"))) < {WORKERS} or (self.ended and not (HERE / "go").exists()):
                time.sleep(0.05)
            self.ended = True
            return {{"val_loss": conf["model"]["x"], "partition": os.environ["SLURM_JOB_PARTITION"]}}
"""
MAIN = {"batch": {"partition": "main", "gres": "gpu:1", "time": "30", "nodelist": "gpu0"}}
FAST = {"name": "fast", "batch": {"partition": "urgent", "gres": "gpu:1", "time": "1:00:00", "nodelist": "gpu1"}}


def jobs_of(study: SlurmStudy, section: str) -> list[Job]:
    """The jobs that were submitted for a section and have not ended."""
    arrays = {array.array_id for array in recorded_arrays(study.config.paths) if array.section == section}
    return [job for job in study.cluster.jobs() if job.array_id in arrays and job.state not in ENDED]


def test_two_kinds_of_jobs_run_one_study_and_one_of_them_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    sections = [MAIN, {**FAST, "trials_per_gpu": 2}]
    study = SlurmStudy(tmp_path, cluster, sections, objective=GATED, n_trials=24)
    assert "2 jobs submitted" in study.submit().stdout
    (main,), (fast,) = jobs_of(study, "main"), jobs_of(study, "fast")
    assert (main.time_limit, fast.time_limit) == ("30:00", "1:00:00")
    assert {main.index, fast.index} == {"0", "1"}  # so that no job writes into another's log
    cluster.wait_for(lambda: study.finished() == WORKERS, "a trial of each worker to end")
    workers = {(record["section"], record["worker"].rpartition(":")[2]) for record in study.records() if record}
    assert workers == {("main", "0"), ("fast", "0"), ("fast", "1")}
    jobs = {job["job"]: job["section"] for job in study.status()["jobs"]}
    assert jobs == {element(main): "main", element(fast): "fast"}
    cluster.scancel("--signal=KILL", "--full", element(main))
    (tmp_path / "go").touch()
    cluster.wait_for(lambda: study.finished() == 24 and not jobs_of(study, "fast"), study.logs(), 200)
    assert study.states() == {"COMPLETE": 24}
    study.verb("results")
    rows = list(csv.DictReader((study.save_path / "results.csv").open()))
    assert len(rows) == 24
    assert {(row["section"], row["partition"]) for row in rows} == {("main", "main"), ("fast", "urgent")}


def test_each_section_keeps_and_loses_jobs_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    study = KeptStudy(tmp_path, cluster, [MAIN, FAST], variables={"STILL": 2}, n_trials=6)
    study.submit()
    cluster.wait_for(lambda: study.stands_still(2))
    (ending,) = jobs_of(study, "fast")
    study.announce_end(ending)
    cluster.wait_for(lambda: [job.id for job in jobs_of(study, "fast")] not in ([], [ending.id]), study.logs())
    assert [array.section for array in recorded_arrays(study.config.paths)] == ["main", "fast", "fast"]
    study.verb("stop", "--jobs", "1", "--yes", expect=2)  # of which section?
    study.verb("stop", "--section", "slow", "--yes", expect=2)
    assert "cancelled 1 jobs (1 running, 0 waiting) of section main" in study.verb("stop", "--section", "main", "--yes")
    cluster.wait_for(lambda: study.finished() == 6 and not study.living(), study.logs())
    study.assert_resumed(2)
    status = study.status()
    assert status["kept"] is None
    assert {name: (kept["jobs"], kept["submitted"]) for name, kept in status["kept_by_section"].items()} == {
        "main": (0, 0), "fast": (1, 1),
    }  # fmt: skip
    assert "keep     0 jobs of main (1 fewer" in study.verb("status")


def test_what_was_submitted_before_a_section_is_refused_is_told(cluster: Cluster, tmp_path: Path) -> None:
    held = {"batch": {"partition": "main", "hold": None}}
    study = SlurmStudy(tmp_path, cluster, [held, {"batch": {"partition": "nowhere"}}], n_trials=2)
    said = study.submit(expect=5).stderr
    (array,) = recorded_arrays(study.config.paths)
    assert "section nowhere: sbatch did not take the jobs" in said
    assert f"{array.label} were submitted before" in said
    assert f"aimlhpo submit {study.save_path} --section nowhere" in said
    assert "jobs of the study from before: 1" in study.verb("submit", "--section", "main", "--jobs", "2")
    assert {array.section for array in recorded_arrays(study.config.paths)} == {"main"}
    assert "cancelled 3 jobs" in study.verb("stop", "--yes")


def test_jobs_of_a_section_that_was_renamed_run_the_study_and_can_be_stopped(cluster: Cluster, tmp_path: Path) -> None:
    main, fast = ({**each, "batch": {**each["batch"], "hold": None}} for each in (MAIN, FAST))
    SlurmStudy(tmp_path, cluster, [main, {**fast, "jobs": 2}], n_trials=2).submit()
    study = SlurmStudy(tmp_path, cluster, [main, {**fast, "name": "new"}], n_trials=2, reload=1)
    assert "2 jobs submitted" in study.submit().stdout
    first, _ = jobs_of(study, "fast")
    cluster.scontrol("release", element(first))
    cluster.wait_for(lambda: study.finished() == 2 and len(jobs_of(study, "fast")) == 1, study.logs())
    assert [record["section"] for record in study.records() if record] == ["fast", "fast"]
    assert "the study has no section fast any more; this job goes by the settings of section main" in study.logs()
    stopped = study.verb("stop", "--section", "fast", "--yes")
    assert "cancelled 1 jobs (0 running, 1 waiting) of section fast" in stopped
    assert "cancelled 3 jobs" in study.verb("stop", "--yes")
