"""From the `slurm:` section to the options of the batch script."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.errors import ConfigError
from aimlhpo.launch.slurm.launcher import SlurmLauncher
from aimlhpo.launch.slurm.plan import Submission, check_submission, plan_submission
from tests.launch.slurm.requests import make_config, make_submission
from tests.project import Project


def planned(save_path: Path, **slurm: Any) -> Submission:
    return plan_submission(make_config(save_path, **slurm))


def test_what_nothing_says_is_filled_in(tmp_path: Path) -> None:
    submission = planned(tmp_path, jobs=3)
    assert submission.jobs == 3
    assert dict(submission.options) == {
        "job-name": "digits",
        "nodes": "1",
        "open-mode": "append",
        "signal": "B:USR1@120",
        "output": f"{tmp_path}/logs/job-%A_%a.log",
        "requeue": None,
    }


def test_what_the_user_says_stands(tmp_path: Path) -> None:
    given = {
        "job-name": "echo", "nodes": "1-1", "open-mode": "truncate", "signal": "B:USR2@300", "no-requeue": None,
        "mail-type": ["END", "FAIL"],
    }  # fmt: skip
    submission = planned(tmp_path, batch=given)
    assert submission.options[:6] == (
        ("job-name", "echo"), ("nodes", "1-1"), ("open-mode", "truncate"), ("signal", "B:USR2@300"),
        ("no-requeue", None), ("mail-type", "END"),
    )  # fmt: skip
    assert ("mail-type", "FAIL") in submission.options
    assert "requeue" not in dict(submission.options)


def test_without_requeue_the_job_says_so(tmp_path: Path) -> None:
    assert "no-requeue" in dict(planned(tmp_path, requeue=False).options)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("out.log", "out_%a.log"),
        ("logs/out", "logs/out_%a"),
        ("%x.out", "%x_%a.out"),
        ("%A.out", "%A_%a.out"),
        ("100%%.out", "100%%_%a.out"),
        ("%j.out", "%j.out"),
        ("%A_%4a.out", "%A_%4a.out"),
        ("/dev/null", "/dev/null"),
    ],
)
def test_each_job_has_its_own_output_file(tmp_path: Path, given: str, written: str) -> None:
    options = dict(planned(tmp_path, batch={"output": given, "error": given}).options)
    assert (options["output"], options["error"]) == (written, written)


def test_the_log_is_named_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert planned(tmp_path, batch={"output": "out.log"}).log == f"{tmp_path}/out_%a.log"
    assert planned(tmp_path, batch={"output": "o", "chdir": "sub"}).log == f"{tmp_path}/sub/o_%a"
    assert planned(tmp_path, batch={"output": "/scratch/%j.log"}).log == "/scratch/%j.log"


@pytest.mark.parametrize(
    ("limit", "lead"),
    [("12:00:00", 120), ("1-00", 120), ("10", 120), ("5", 60), ("1:00", 12), ("UNLIMITED", 120), ("0:01", 1)],
)
def test_the_signal_comes_early_enough_and_not_at_the_start(tmp_path: Path, limit: str, lead: int) -> None:
    assert planned(tmp_path, batch={"time": limit}).value("signal") == f"B:USR1@{lead}"


@pytest.mark.parametrize(
    ("given", "written"),
    [("USR2@90", "B:USR2@90"), ("R:USR1@90", "RB:USR1@90"), ("B:HUP", "B:HUP"), ("RB:USR1", "RB:USR1")],
)
def test_the_users_signal_reaches_the_agent(tmp_path: Path, given: str, written: str) -> None:
    assert planned(tmp_path, batch={"signal": given}).value("signal") == written


def test_python_is_the_submitting_one_unless_another_is_activated_or_named(tmp_path: Path) -> None:
    assert planned(tmp_path).python.command == (sys.executable,)
    assert not planned(tmp_path).python.prefer_activated
    assert planned(tmp_path, kernel="conda activate x").python.prefer_activated
    named = planned(tmp_path, kernel="module load apptainer", python="apptainer exec 'my image.sif' python").python
    assert named.command == ("apptainer", "exec", "my image.sif", "python")
    assert not named.prefer_activated


def test_python_may_be_relative_or_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert planned(tmp_path, python=".venv/bin/python").python.command == (f"{tmp_path}/.venv/bin/python",)
    assert planned(tmp_path, python="~/env/bin/python").python.command == ("/home/ada/env/bin/python",)
    assert planned(tmp_path, python="python3.12").python.command == ("python3.12",)


def test_at_most_so_many_at_once(tmp_path: Path) -> None:
    submission = planned(tmp_path, jobs=20, batch={"array": "%4"})
    assert submission.at_once == 4
    assert submission.value("array") is None


@pytest.mark.parametrize(
    ("where", "slurm"),
    [
        ("slurm:batch:nodes", {"batch": {"nodes": "2"}}),
        ("slurm:batch:nodes", {"batch": {"nodes": "1-4"}}),
        ("slurm:batch:nodes", {"nodes_per_worker": 2}),
        ("slurm:batch:nodes", {"nodes_per_worker": 2, "batch": {"nodes": "2-4"}}),
        ("slurm:batch:nodes", {"nodes_per_worker": 2, "batch": {"nodes": "5"}}),
        ("slurm:nodes_per_worker", {"nodes_per_worker": 4, "batch": {"nodes": "2"}}),
        ("slurm:workers_per_job", {"nodes_per_worker": 2, "batch": {"nodes": "4"}, "workers_per_job": 3}),
        ("slurm:batch:ntasks", {"nodes_per_worker": 2, "batch": {"nodes": "4", "ntasks": "2"}}),
        ("slurm:batch:array", {"batch": {"array": "0-9"}}),
        ("slurm:batch:wrap", {"batch": {"wrap": "hostname"}}),
        ("slurm:batch:wait", {"batch": {"wait": None}}),
        ("slurm:batch:test-only", {"batch": {"test-only": None}}),
        ("slurm:batch:signal", {"batch": {"signal": "TERM@60"}}),
        ("slurm:batch:signal", {"batch": {"signal": "B:9@60"}}),
        ("slurm:batch:signal", {"batch": {"signal": "NOSUCH"}}),
        ("slurm:batch:output", {"batch": {"output": "a\\b"}}),
        ("slurm:batch:comment", {"batch": {"comment": "a\n#SBATCH --uid=0"}}),
        ("slurm:batch:comment", {"batch": {"comment": ["fine", "a\x1bb"]}}),
        ("slurm:python", {"python": "python; touch x"}),
        ("slurm:python", {"python": "$(touch x)"}),
        ("slurm:python", {"python": "it's"}),
        ("slurm:kernel", {"kernel": "a\0b"}),
        ("slurm:jobs", {"jobs": 0}),
    ],
)
def test_what_cannot_be_submitted_is_refused_by_name(tmp_path: Path, where: str, slurm: dict[str, Any]) -> None:
    config = make_config(tmp_path, **slurm)
    assert where in [problem.where for problem in check_submission(config, config.slurm.jobs)]
    with pytest.raises(ConfigError, match=where):
        plan_submission(config)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "a\x7fb"])
def test_names_that_no_script_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="optuna:name"):
        plan_submission(make_config(tmp_path, name=name))


@pytest.mark.parametrize("name", ["50%", "a\\b", "a\nb"])
def test_paths_that_slurm_reads_otherwise_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="optuna:save_path"):
        plan_submission(make_config(tmp_path / name))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    config = make_config(tmp_path, jobs=0, batch={"nodes": "2", "wrap": "x"}, python="a;b")
    assert len(check_submission(config, 0)) == 4


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"gres": "gpu:v100:2"}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:3(S:0)"}, 3),
        ({"gres": "shard:2,gpu:1"}, 1),
        ({"gres": "tmpfs:10G"}, None),
        ({"gpus": "4"}, 4),
        ({"gpus-per-node": "a100:2"}, 2),
        ({"gpus-per-task": "1", "ntasks": "4"}, 4),
        ({"nodes": "2", "gpus": "4"}, 2),
        ({"nodes": "2", "gpus-per-task": "4"}, 4),
        ({"nodes": "2", "gres": "gpu:4"}, 4),
        ({}, None),
    ],
)
def test_how_many_gpus_a_job_asks_for_on_a_node(options: dict[str, str], gpus: int | None) -> None:
    assert make_submission(options=tuple(options.items())).gpus_per_node == gpus


def test_jobs_of_several_nodes_are_planned_and_described(tmp_path: Path) -> None:
    batch = {"nodes": "4", "gpus-per-node": "2"}
    config = make_config(tmp_path, nodes_per_worker=2, gpus_per_worker=2, batch=batch)
    assert plan_submission(config).nodes == 4
    (plan,) = SlurmLauncher().plan(config)
    rows = dict(plan.rows)
    assert rows["jobs"] == "1 job; each one agent on 4 nodes"
    assert rows["workers"] == "2 in each job, 2 GPUs on each of 2 nodes"
    assert "srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist=NODES --overlap" in rows["other nodes"]


def test_jobs_that_measure_their_gpus_are_described(tmp_path: Path) -> None:
    config = make_config(tmp_path, packs=True, most_trials_per_gpu=3, batch={"gpus-per-node": "2"})
    said = dict(SlurmLauncher().plan(config)[0].rows)["workers"]
    assert said == "one for each GPU of the job, and up to 3 where its memory and utilisation allow it"


def test_trials_of_several_nodes_do_not_run_on_this_machine(tmp_path: Path) -> None:
    slurm = {"nodes_per_worker": 2, "batch": {"nodes": 2}}
    said = Project(tmp_path, slurm=slurm).run("--local", "1", expect=2).stderr
    assert "slurm: nodes_per_worker: 2 nodes for each trial, and a run on this machine has one" in said


def test_a_limit_of_each_array_does_not_go_with_jobs_that_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="slurm:keep: does not go with `array`"):
        planned(tmp_path, jobs=4, keep=True, batch={"array": "%2"})


def test_what_cannot_be_submitted_is_told_with_its_section(tmp_path: Path) -> None:
    good = {"batch": {"partition": "a100"}}
    bad = {"keep": True, "batch": {"partition": "v100", "wait": None, "array": "%2"}}
    problems = SlurmLauncher().check(Project(tmp_path, slurm=[good, bad]).config)
    assert [problem.where for problem in problems] == ["slurm:v100:batch:wait", "slurm:v100:keep"]
    (tmp_path / "alone").mkdir()
    assert SlurmLauncher().check(Project(tmp_path / "alone", slurm=[bad]).config) == problems
