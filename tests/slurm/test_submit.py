"""Studies on a real SLURM, from the command to the last trial."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.servers import PostgreSQL
from tests.slurm.cluster import COMMAND, Cluster
from tests.slurm.study import SlurmStudy


def test_eight_jobs_with_a_gpu_each(cluster: Cluster, tmp_path: Path) -> None:
    batch = {"n": 8, "gres": "gpu:v100:1", "t": "12:00:00", "J": "echo", "o": "logs/out", "e": "logs/err"}
    study = SlurmStudy(tmp_path, cluster, {"jobs": 8, "batch": batch}, {"MEET": 8}, n_trials=24)
    said = study.submit().stdout
    assert f"{study.array}_[0-7]" in said
    assert f"{tmp_path}/logs/out_%a" in said
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 24}
    places = {tuple(words[2:4]) for words in study.notes("start")}
    assert places == {(f"gpu{node}", str(gpu)) for node in range(4) for gpu in range(2)}
    assert {words[4] for words in study.notes("start")} == {"8"}
    outputs = [tmp_path / "logs" / f"out_{index}" for index in range(8)]
    assert all(file.read_text().count("job ") == 1 for file in outputs)
    agents = {record["worker"] for record in study.records()}
    assert len(agents) == 8


def test_whole_nodes_run_a_worker_on_each_gpu(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 4, "batch": {"gres": "gpu:2", "cpus-per-task": 16, "nodes": 1}}
    study = SlurmStudy(tmp_path, cluster, slurm, {"MEET": 8}, n_trials=16)
    study.submit()
    study.wait_for_end()
    starts = study.notes("start")
    assert {tuple(words[2:4]) for words in starts} == {(f"gpu{n}", str(g)) for n in range(4) for g in range(2)}
    assert {words[4] for words in starts} == {"8"}  # the job's 16 CPUs, shared by its 2 workers


def test_a_job_measures_how_many_trials_share_its_gpu(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_tests = Path(__file__).parents[1] / "agent"
    monkeypatch.syspath_prepend(str(agent_tests / "fake_nvml"))
    (tmp_path / "gpu.json").write_text('{"total": 1000, "utilisation": [0, 40, 80]}')
    study = SlurmStudy(
        tmp_path,
        cluster,
        {"jobs": 1, "trials_per_gpu": "auto", "max_trials_per_gpu": 2, "batch": {"gres": "gpu:1", "cpus-per-task": 2}},
        {"FAKE_NVML": tmp_path, "PYTHONPATH": f"{agent_tests / 'fake_nvml'}:{agent_tests.parents[1]}"},
        (agent_tests / "objectives" / "on_a_gpu.py").read_text(),
        model={"curve": [100, 280], "needs": {}, "enough": 2, "loading": 0, "collide": []},
        n_trials=6,
        gpu=True,
    )
    study.submit()
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 6}
    (output,) = (study.save_path / "logs").glob("job-*")
    assert output.read_text().count("2 trials at a time from now on (the largest so far took 280 of 1000 MiB)") == 1


STEPS = """
    import os, subprocess
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            places = Path(__file__).parent / "places"
            places.mkdir(exist_ok=True)
            meet = f"touch {places}/$CUDA_VISIBLE_DEVICES; until [ $(ls {places} | wc -l) = 2 ]; do sleep 0.1; done"
            subprocess.run(["srun", "sh", "-c", meet], check=True)
            return {"val_loss": 1.0, "own": os.environ["CUDA_VISIBLE_DEVICES"], "tasks": "SLURM_NTASKS" in os.environ}
"""


def test_a_step_of_a_training_has_its_slots_gpu_and_waits_for_no_other(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 1, "batch": {"gres": "gpu:2", "ntasks": 4}}
    study = SlurmStudy(tmp_path, cluster, slurm, objective=STEPS, n_trials=2)
    study.submit()
    study.wait_for_end()
    assert study.meeting() == ["0", "1"]
    assert sorted(record["metrics"]["own"] for record in study.records()) == ["0", "1"]
    assert not any(record["metrics"]["tasks"] for record in study.records())


def test_jobs_without_gpus_share_their_cpus(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 1, "workers_per_job": 3, "batch": {"cpus-per-task": 12}}
    study = SlurmStudy(tmp_path, cluster, slurm, n_trials=6)
    study.submit()
    study.wait_for_end()
    assert {tuple(words[3:5]) for words in study.notes("start")} == {("-", "4")}


def test_requeue_goes_on_with_the_same_trials(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 1, "batch": {"gres": "gpu:2"}}
    study = SlurmStudy(tmp_path, cluster, slurm, {"STILL": 2}, n_trials=5)
    study.submit()
    cluster.wait_for(lambda: study.stands_still(2))
    cluster.requeue(f"{study.array}_0")
    study.wait_for_end()
    study.assert_resumed(2)
    assert study.jobs()[0].restarts == 1


def test_preemption_goes_on_with_the_same_trial(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, "batch": {"nodelist": "gpu1"}}, {"STILL": 1}, n_trials=3)
    study.submit()
    cluster.wait_for(study.stands_still)
    urgent = ("--partition=urgent", "--exclusive", "--nodelist=gpu1", "--output=/dev/null")
    cluster.sbatch(*urgent, "--wrap", "sleep 1", cwd=tmp_path)
    study.wait_for_end()
    study.assert_resumed()
    assert "stopping: preempted" in study.logs()


def test_scancel_is_told_from_preemption(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1}, {"STILL": 1}, n_trials=3)
    study.submit()
    cluster.wait_for(study.stands_still)
    cluster.scancel(study.array)
    cluster.wait_for_end(study.array)
    assert [trial["cause"] for trial in study.status()["interrupted"]] == ["stopped by user"]


def test_the_signal_before_the_walltime_queues_the_job_again(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, "batch": {"signal": "HUP@60"}}, {"STILL": 1}, n_trials=3)
    study.submit()
    cluster.wait_for(study.stands_still)
    cluster.signal_batch(study.jobs()[0].id, signal.SIGHUP)
    study.wait_for_end()
    study.assert_resumed()
    assert "asking SLURM to queue it again" in study.logs()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"signal": "USR1@0"}], ids=["the signal", "the agent's own clock"])
def test_at_the_walltime_the_job_queues_itself_again(cluster: Cluster, tmp_path: Path, options: dict[str, str]) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, "batch": {"time": "1", **options}}, {"STILL": 1}, n_trials=3)
    study.submit()
    study.wait_for_end(200)
    study.assert_resumed()
    assert "asking SLURM to queue it again" in study.logs()


def test_a_job_at_its_limit_of_requeues_says_how_to_go_on(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, "max_requeues": 0}, {"STILL": 1}, n_trials=2)
    study.submit()
    cluster.wait_for(study.stands_still)
    cluster.signal_batch(study.jobs()[0].id, signal.SIGUSR1)
    cluster.wait_for_end(study.array)
    assert "max_requeues is 0" in study.logs()
    assert f"aimlhpo submit {study.save_path}" in study.logs()
    assert set(study.states()) == {"WAITING"}  # the one that ran, and what was claimed ahead
    study.verb("submit", "--jobs", "2", "--wait")
    study.assert_resumed()


def test_where_slurm_refuses_a_requeue_the_job_says_how_to_go_on(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1, "batch": {"no-requeue": True}}, {"STILL": 1}, n_trials=2)
    study.submit()
    cluster.wait_for(study.stands_still)
    cluster.signal_batch(study.jobs()[0].id, signal.SIGUSR1)
    cluster.wait_for_end(study.array)
    assert "Requested operation is presently disabled" in study.logs()
    assert f"aimlhpo submit {study.save_path}" in study.logs()
    assert set(study.states()) == {"WAITING"}  # the one that ran, and what was claimed ahead


def test_stop_gives_back_and_reload_finishes(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2}, {"STILL": 2}, n_trials=6)
    study.submit()
    cluster.wait_for(lambda: study.stands_still(2))
    other = cluster.sbatch("--output=/dev/null", "--wrap", "sleep 100", cwd=tmp_path)
    assert "--yes" in study.verb("stop", "--help")
    study.verb("stop", expect=2)  # nobody is there to be asked
    assert "cancelled 2 jobs" in study.verb("stop", "--yes")
    assert set(study.states()) <= {"COMPLETE", "WAITING"}
    interrupted = study.status()["interrupted"]  # not what was claimed ahead
    assert [(trial["number"], trial["cause"]) for trial in interrupted] == [(n, "stopped by user") for n in range(2)]
    assert cluster.state(other) in ("RUNNING", "PENDING")
    study.verb("stop", "--yes", expect=3)
    study.submit(expect=2)  # reload is 0, and there is a study
    study.submit("-r", "1", "--wait")
    study.assert_resumed(2)
    assert "nothing to do" in study.submit("-r", "1", expect=3).stdout
    study.verb("submit", expect=3)


def test_jobs_can_be_added_to_a_running_study(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 1}, {"STILL": 1}, n_trials=6)
    study.submit()
    cluster.wait_for(study.stands_still)
    first = study.array
    assert "jobs of the study from before: 1" in study.verb("submit", "--jobs", "2")
    cluster.wait_for(lambda: study.finished() == 5)
    status = study.status()
    assert {job["job"] for job in status["jobs"]} >= {f"{first}_0", f"{study.array}_1", f"{study.array}_2"}
    cluster.requeue(f"{first}_0")
    cluster.wait_for(lambda: study.finished() == 6)
    study.assert_resumed()


def test_queued_jobs_are_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2, "batch": {"hold": None}}, n_trials=2)
    study.submit()
    shown = study.verb("status")
    assert "waiting for 2 queued jobs" in shown
    assert "reload" not in shown
    cluster.scontrol("release", str(study.array))
    study.wait_for_end()
    assert "waiting for" not in study.verb("status")


def test_a_line_that_fails_in_the_jobs_is_told_with_their_log(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 2, "bash": ["echo here"], "kernel": "conda activate torch"}
    study = SlurmStudy(tmp_path, cluster, slurm, n_trials=2)
    told = study.submit("--wait", expect=4).stdout
    cause = "failed: slurm: exit status 127 of the line: conda activate torch"
    for index in range(2):
        log = study.save_path / "logs" / f"job-{study.array}_{index}.log"
        assert f"job {study.array}_{index} {cause}\n    {log}\n" in told
        assert "here\n" in log.read_text()
    shown = study.verb("status")
    assert cause in shown
    assert f"aimlhpo submit {study.save_path}" in shown
    # The cause stays until other jobs are submitted; one that works is not blamed for those before.
    study.submit("-r", "1", "slurm:stop_on_error=false", "--wait")
    assert cause not in study.verb("status")
    assert study.states() == {"COMPLETE": 2}


def test_a_job_that_dies_at_once_is_told_with_its_log(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"python": "/nowhere/python"}, n_trials=2)
    told = study.submit("--wait", expect=4).stdout
    log = study.save_path / "logs" / f"job-{study.array}_0.log"
    assert f"job {study.array}_0 failed\n    {log}\n" in told
    objective = tmp_path / "objective.py"
    only_in_jobs = 'import os\nif "SLURM_JOB_ID" in os.environ:\n    raise RuntimeError("no luck")\n'
    objective.write_text(only_in_jobs + objective.read_text())
    study.submit("-r", "1", f"slurm:python={sys.executable}", "--wait", expect=4)
    assert f"job {study.array}_0 failed: {objective}" in study.verb("status")


def test_a_dead_controller_is_a_wait(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2, "batch": {"gres": "gpu:1"}}, {"MEET": 3}, n_trials=8)
    study.submit()
    cluster.wait_for(lambda: len(study.meeting()) == 2)
    cluster.kill_controller()
    assert study.finished() == 0
    (tmp_path / "places" / "the-test").touch()
    cluster.wait_for(lambda: study.finished() == 8)
    assert study.status()["slurm_answers"] is False
    failed = study.verb("submit", expect=3)
    assert "nothing to do" in failed
    cluster.start_controller()
    cluster.wait_for_end(study.array)
    assert study.states() == {"COMPLETE": 8}


def test_a_controller_that_dies_during_the_submission_is_told(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2, "batch": {"J": "again"}}, n_trials=4)
    killing = tmp_path / "bin" / "sbatch"
    killing.parent.mkdir()
    kill = shlex.join([sys.executable, str(COMMAND), "kill-controller", "--dir", str(cluster.directory)])
    killing.write_text(f'#!/bin/bash\n{kill}\nexec {shutil.which("sbatch")} "$@"\n')
    killing.chmod(0o755)
    failed = study.submit(expect=5, PATH=f"{killing.parent}:{study.env['PATH']}")
    assert "Unable to contact slurm controller" in failed.stderr
    assert "None was submitted" in failed.stderr
    assert "submitted" not in failed.stdout
    cluster.start_controller()
    study.submit("-r", "1", "--wait")
    assert study.states() == {"COMPLETE": 4}


def test_a_failed_submission_can_be_repeated(cluster: Cluster, tmp_path: Path) -> None:
    study = SlurmStudy(tmp_path, cluster, {"jobs": 2, "batch": {"p": "nowhere"}}, n_trials=4)
    failed = study.submit(expect=5)
    assert "invalid partition specified: nowhere" in failed.stderr
    study.submit("-r", "1", "slurm:batch:p=main", "--wait")
    assert study.states() == {"COMPLETE": 4}


def test_a_study_with_a_name_from_hell(cluster: Cluster, tmp_path: Path) -> None:
    name = "é*[x]? 'b' \"c\" $(touch canary) `touch canary`; touch canary & #|>canary"
    folder = tmp_path / name
    folder.mkdir()
    slurm = {"jobs": 2, "batch": {"J": name, "comment": name, "o": f"{name}.out"}}
    study = SlurmStudy(folder, cluster, slurm, n_trials=3, name=name)
    study.submit("--wait")
    assert study.states() == {"COMPLETE": 3}
    assert (folder / f"{name}_0.out").exists()
    assert cluster.squeue("--states=all", f"--jobs={study.array}_0", "--format=%j").strip() == name
    assert not list(tmp_path.rglob("canary"))


def test_a_password_reaches_the_jobs_and_nothing_else(
    cluster: Cluster, tmp_path: Path, postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = postgresql_server.password
    monkeypatch.setenv(postgresql_server.password_variable, secret)
    storage = postgresql_server.secret_url()
    slurm = {"jobs": 2, "batch": {"gres": "gpu:1"}}
    study = SlurmStudy(tmp_path, cluster, slurm, {"MEET": 3}, n_trials=4, storage=storage)
    said = study.submit()
    cluster.wait_for(lambda: len(study.meeting()) == 2)
    shown = cluster.scontrol("show", "job", "-d", str(study.array))
    processes = [line for line in Path("/proc").glob("[0-9]*/cmdline") if secret.encode() in _read(line)]
    (tmp_path / "places" / "the-test").touch()
    study.wait_for_end()
    assert study.states() == {"COMPLETE": 4}
    told = said.stdout + said.stderr + shown + study.verb("status", "--json") + study.verb("results")
    assert secret not in told
    assert not processes
    assert [file for file in tmp_path.rglob("*") if file.is_file() and secret.encode() in _read(file)] == []


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a process that has ended
        return b""


def test_dry_run_needs_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    without = Cluster(directory=tmp_path / "none")
    slurm = {"jobs": 4, "batch": {"gres": "gpu:2", "t": "1-00"}}
    study = SlurmStudy(tmp_path, without, slurm, n_trials=4)
    said = study.submit("--dry-run").stdout
    assert "#SBATCH --array=0-3\n" in said
    assert "2 in each job, one for each GPU" in said
    assert not study.save_path.exists()
    assert "sbatch is not on PATH" in study.submit(expect=5).stderr
