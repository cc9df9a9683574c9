"""Submitting to a real SLURM, with a stand-in for the agent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.config.sbatch_options import WITH_VALUE, normalise
from aimlhpo.errors import ConfigError, SubmissionError
from aimlhpo.launch.slurm import queue
from aimlhpo.launch.slurm.plan import plan_submission
from aimlhpo.launch.slurm.sbatch import render_script, submit_from_job, submit_jobs
from tests.launch.slurm.requests import make_config
from tests.slurm.cluster import Cluster

HOSTILE = ["two words", "it's", 'a"b', "a\\b", "a;touch canary", "$(touch canary)", "`touch canary`", "#a|b>canary"]
ALL_OF_IT = "a 'b' \"c\" $(touch canary) `touch canary`; touch canary & #|>canary"


@pytest.fixture
def here(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to submit from, to that cluster."""
    for name, value in cluster.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))  # the jobs' login shells would read the profile of whoever tests
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def agent(tmp_path: Path) -> Callable[[str], str]:
    """Gives a `python:` that does what the given shell line says, in the place of the agent."""

    def make(line: str) -> str:
        script = tmp_path / "stand-in.sh"
        script.write_text(f"{line}\n")
        return f"bash {script}"

    return make


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line for each call of sbatch, which still is the real one."""
    real, log = shutil.which("sbatch"), tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.write_text(f'#!/bin/bash\necho call >> {log}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return log


def texts(directory: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(directory.glob("job-*"))}


def test_a_hundred_jobs_are_one_call(cluster: Cluster, here: Path, agent: Callable[[str], str], calls: Path) -> None:
    config = make_config(here / "run", jobs=100, batch={"hold": None}, python=agent("echo here"))
    (array,) = submit_jobs(config).arrays
    assert calls.read_text() == "call\n"
    assert array.label == f"{array.array_id}_[0-99]"
    assert [job.index for job in queue.query_jobs_of_study(config.paths) or []] == list(range(100))


def test_the_submission_is_recorded(cluster: Cluster, here: Path, agent: Callable[[str], str]) -> None:
    config = make_config(here / "run", jobs=2, python=agent("sleep 600"))
    (array,) = submit_jobs(config).arrays
    (recorded,) = queue.recorded_arrays(config.paths)
    assert recorded == array
    assert (array.count, array.log) == (2, f"{here}/run/logs/job-%A_%a.log")
    script = config.paths.jobs / str(array.script)
    assert script.read_text() == render_script(plan_submission(config))
    assert script.resolve().stat().st_mode & 0o077 == 0


def test_one_agent_with_all_of_the_job(cluster: Cluster, here: Path, agent: Callable[[str], str]) -> None:
    line = 'echo "$@" "$SLURM_CPUS_ON_NODE $CUDA_VISIBLE_DEVICES"'
    batch = {"ntasks": "4", "cpus-per-task": "2", "gres": "gpu:2"}
    config = make_config(here / "run", batch=batch, python=agent(line))
    submit_jobs(config)
    cluster.wait_for(lambda: any(texts(config.paths.logs).values()))
    (text,) = texts(config.paths.logs).values()
    assert text.startswith("-u -P -")
    assert text.endswith(f" aimlhpo agent {here}/run 8 0,1\n")


def test_output_and_error_land_where_the_user_said(cluster: Cluster, here: Path, agent: Callable[[str], str]) -> None:
    batch = {"output": "out dir/o.txt", "error": "e-%j"}
    config = make_config(here / "run", jobs=2, batch=batch, python=agent("echo out; echo err >&2"))
    done = submit_jobs(config)
    cluster.wait_for_end(int(done.arrays[0].array_id))
    assert done.submission.log == f"{here}/out dir/o_%a.txt"
    assert (here / "out dir" / "o_0.txt").read_text() == "out\n"
    assert (here / "out dir" / "o_1.txt").read_text() == "out\n"
    assert [file.read_text() for file in here.glob("e-*")] == ["err\n", "err\n"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, "afterany:{after}"),
        ("singleton", "singleton,afterany:{after}"),
        # Any of these is enough, so nothing can be added.
        ("afterok:{first}?afternotok:{first}", "afterok:{first}?afternotok:{first}"),
    ],
)
def test_jobs_that_a_job_submits_begin_after_it(
    cluster: Cluster, here: Path, agent: Callable[[str], str], given: str | None, wanted: str
) -> None:
    config = make_config(here / "run", python=agent("sleep 600"))
    (running,) = submit_jobs(config).arrays
    first, after = running.array_id, f"{running.array_id}_0"
    batch = {"hold": None} if given is None else {"hold": None, "dependency": given.format(first=first)}
    done = submit_from_job(make_config(here / "run", python=agent("sleep 600"), batch=batch), jobs=2, after=after)
    assert [(array.first, array.count) for array in done.arrays] == [(1, 2)]
    assert done.submission.value("dependency") == wanted.format(first=first, after=after)
    assert [option for option, _ in done.submission.options].count("dependency") == 1


def test_what_was_taken_away_counts_until_the_next_submission(
    cluster: Cluster, here: Path, agent: Callable[[str], str]
) -> None:
    config = make_config(here / "run", jobs=2, batch={"hold": None}, python=agent("sleep 600"))
    submit_jobs(config)
    kept = queue.read_kept_jobs(config)
    queue.write_kept_jobs(config, replace(kept.without(["7_1", "7_2", "7_1"]), submitted=4))
    kept = queue.read_kept_jobs(config)
    assert (kept.fewer, kept.submitted, kept.without(["7_2"])) == (2, 4, kept)
    submit_jobs(config)
    kept = queue.read_kept_jobs(config)
    assert (kept.fewer, kept.submitted) == (0, 4)


def test_jobs_added_to_living_ones_have_logs_of_their_own(
    cluster: Cluster, here: Path, agent: Callable[[str], str]
) -> None:
    config = make_config(here / "run", jobs=3, batch={"output": "o.txt"}, python=agent("sleep 600"))
    submit_jobs(config)
    (added,) = submit_jobs(config, jobs=2).arrays
    assert added.label == f"{added.array_id}_[3-4]"
    queue.cancel_jobs(config)
    cluster.wait_for(lambda: not queue.live_jobs(config))
    (again,) = submit_jobs(config, jobs=2).arrays
    assert again.label == f"{again.array_id}_[0-1]"


def test_more_jobs_than_an_array_can_have(
    here: Path, agent: Callable[[str], str], calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster("--max-array-size", "6") as small:
        monkeypatch.setenv("SLURM_CONF", small.settings["SLURM_CONF"])
        config = make_config(here / "run", jobs=14, python=agent("echo here"))
        done = submit_jobs(config)
        assert [array.count for array in done.arrays] == [6, 6, 2]
        assert calls.read_text() == "call\n" * 3
        small.wait_for(lambda: len(texts(config.paths.logs)) == 14)


def test_a_failed_sbatch_says_slurms_own_words_and_leaves_nothing(
    cluster: Cluster, here: Path, agent: Callable[[str], str]
) -> None:
    wrong = make_config(here / "run", batch={"partition": "nowhere"}, python=agent("echo here"))
    with pytest.raises(SubmissionError, match="invalid partition specified: nowhere"):
        submit_jobs(wrong)
    assert list(wrong.paths.jobs.iterdir()) == []
    (array,) = submit_jobs(make_config(here / "run", python=agent("echo here"))).arrays
    assert int(array.array_id) > 0


def test_no_slurm_on_this_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = make_config(here / "run")
    with pytest.raises(SubmissionError, match="sbatch is not on PATH"):
        submit_jobs(config)
    assert render_script(plan_submission(config)).startswith("#!/bin/bash -l\n")


def test_the_queue_shows_the_studys_jobs_alone(cluster: Cluster, here: Path, agent: Callable[[str], str]) -> None:
    mine = make_config(here / "mine", jobs=2, batch={"array": "%1"}, python=agent("sleep 600"))
    other = make_config(here / "other", python=agent("sleep 600"))
    (array,) = submit_jobs(mine).arrays
    submit_jobs(other)
    known: list[queue.QueuedJob] = []

    def limited() -> bool:
        """Whether SLURM has looked at both; until then it tells no reason, or another one."""
        known[:] = queue.query_jobs_of_study(mine.paths) or []
        return [job.reason for job in known if job.state == "PENDING"] == ["JobArrayTaskLimit"]

    cluster.wait_for(limited)
    running, pending = known
    assert (running.job_id, running.state) == (f"{array.array_id}_0", "RUNNING")
    assert running.node in ("gpu0", "gpu1", "gpu2", "gpu3")
    assert pending.index == 1
    assert queue.is_job_alive(known, running.job_id, 0) is True
    assert queue.is_job_alive(known, running.job_id, 1) is False
    assert queue.is_job_alive(known, "999999_0", 0) is False


def test_stop_ends_the_studys_own_jobs_only(cluster: Cluster, here: Path, agent: Callable[[str], str]) -> None:
    mine = make_config(here / "mine", jobs=3, batch={"array": "%1"}, python=agent("sleep 600"))
    other = make_config(here / "other", python=agent("sleep 600"))
    submit_jobs(mine), submit_jobs(other)
    cluster.wait_for(lambda: bool(queue.live_jobs(mine).running and queue.live_jobs(other).running))
    # An id that SLURM has given to somebody else since.
    (theirs,) = queue.recorded_arrays(other.paths)
    queue.write_array(mine.paths, queue.JobArray(theirs.array_id, 1, script="long-gone.sh"))
    stopped = queue.cancel_jobs(mine)
    assert (stopped.running, stopped.waiting) == (1, 2)
    cluster.wait_for(lambda: not queue.live_jobs(mine))
    assert queue.live_jobs(other).running == 1


def test_a_profiles_defaults_do_not_undo_what_the_study_says(
    cluster: Cluster, here: Path, agent: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = {
        "SBATCH_TIMELIMIT": "1", "SBATCH_ARRAY_INX": "7", "SBATCH_WAIT": "1", "SBATCH_OUTPUT": str(here / "profile"),
        "SBATCH_PARTITION": "urgent", "SLURM_RESTART_COUNT": "3", "CUDA_VISIBLE_DEVICES": "5",
    }  # fmt: skip
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    line = "echo $SLURM_ARRAY_TASK_ID $SLURM_JOB_PARTITION r${SLURM_RESTART_COUNT}g${CUDA_VISIBLE_DEVICES}; sleep 600"
    config = make_config(here / "run", batch={"time": "10:00"}, python=agent(line))
    submit_jobs(config)
    cluster.wait_for(lambda: list(texts(config.paths.logs).values()) == ["0 urgent rg\n"])
    (job,) = queue.query_jobs_of_study(config.paths) or []
    assert job.time_left is not None
    assert 500 < job.time_left <= 600


@pytest.mark.parametrize("value", [ALL_OF_IT, "a\\b"])
def test_no_value_of_any_option_runs_a_command(cluster: Cluster, here: Path, value: str) -> None:
    """Each option takes the value or is refused, by us or by SLURM, and nothing else happens."""
    accepted = list(_accepted(here, value))
    assert "job-name" in accepted
    assert "comment" in accepted
    assert not list(here.rglob("canary"))


def _accepted(here: Path, value: str) -> Iterator[str]:
    for option in sorted(WITH_VALUE - {"wrap", "wait-all-nodes", "clusters"}):
        batch, problems = normalise({option: value})
        if problems:
            continue
        config = make_config(here / "run", batch={"hold": None, **batch}, python="/bin/true")
        try:
            (array,) = submit_jobs(config).arrays
        except (ConfigError, SubmissionError):
            continue
        assert int(array.array_id) > 0
        yield option


def test_names_reach_slurm_as_they_are(cluster: Cluster, here: Path) -> None:
    names = [*HOSTILE, "my hetjob", "packjob-1", "é ü"]
    batch = {"hold": None}
    ids = [submit_jobs(make_config(here / "run", name=name, batch=batch)).arrays[0].array_id for name in names]
    shown = [cluster.squeue(f"--jobs={array}", "--format=%j").strip() for array in ids]
    assert shown == names


@pytest.mark.parametrize("char", ["\n", "\r", "\x00", "\x1b"])
def test_control_characters_are_refused_by_name_in_every_option(here_only: Path, char: str) -> None:
    for option in sorted(WITH_VALUE):
        config = make_config(here_only / "run", batch={option: f"a{char}#SBATCH --uid=0"}, python="/bin/true")
        with pytest.raises(ConfigError, match=f"slurm:batch:{option}"):
            submit_jobs(config)


@pytest.fixture
def here_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", "/nowhere")
    return tmp_path


@pytest.mark.parametrize("name", [ALL_OF_IT, "it's"])
def test_the_study_may_lie_in_any_directory(
    cluster: Cluster, here: Path, agent: Callable[[str], str], name: str
) -> None:
    config: Any = make_config(here / name / "run", name=name, python=agent('echo "${@: -1}"'))
    submit_jobs(config)
    cluster.wait_for(lambda: list(texts(config.paths.logs).values()) == [f"{here}/{name}/run\n"])
    assert not list(here.rglob("canary"))
