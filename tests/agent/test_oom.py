"""A worker that the kernel killed for lack of memory is told apart from one that somebody killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aimlhpo.agent import worker_pool
from tests.project import Project
from tests.waiting import wait_until

LIMIT = 700 << 20  # bytes
EATER = f"""
    import mmap
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 0:
                eaten = mmap.mmap(-1, {2 * LIMIT})
                for page in range(0, len(eaten), 4096):
                    eaten[page] = 1
            return {{"val_loss": 1.0}}
"""


def test_kills_are_counted_with_cgroups_of_version_1(tmp_path: Path) -> None:
    mine, job = tmp_path / "cgroup", tmp_path / "memory" / "slurm" / "job_7"
    mine.write_text("9:name=systemd:/\n4:memory:/slurm/job_7\n1:cpu,cpuacct:/\n0::/\n")
    job.mkdir(parents=True)
    (job / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert worker_pool.count_memory_kills(tmp_path, mine) == 3


def test_kills_are_counted_with_cgroups_of_version_2(tmp_path: Path) -> None:
    mine, job = tmp_path / "cgroup", tmp_path / "system.slice" / "job_7"
    mine.write_text("0::/system.slice/job_7\n")
    job.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (job / "memory.events").write_text("low 0\noom 9\noom_kill 2\noom_group_kill 1\n")
    assert worker_pool.count_memory_kills(tmp_path, mine) == 2


def test_no_kills_are_counted_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("4:memory:/gone\n")
    assert (
        worker_pool.count_memory_kills(tmp_path, tmp_path / "mine")
        == worker_pool.count_memory_kills(tmp_path, tmp_path / "nothing")
        == 0
    )


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of our own, of either version, where this machine lets us make one."""
    parent = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes"
    if not parent.exists():
        parent, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = parent / f"aimlhpo-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no cgroup can be made here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of all processes in the cgroup")
    group.rmdir()


@pytest.mark.oom
def test_trial_whose_worker_the_kernel_killed_has_out_of_memory_as_its_cause(
    tmp_path: Path, small_cgroup: Path
) -> None:
    project = Project(tmp_path, EATER, n_trials=2)
    join = f'echo $$ > {small_cgroup}/cgroup.procs && exec "$@"'
    subprocess.run(["sh", "-c", join, "sh", *project.command()], cwd=tmp_path, check=True, timeout=120)
    assert project.states() == {"COMPLETE": 2, "FAIL": 1}
    assert project.records()[0]["cause"] == worker_pool.KILLED_FOR_MEMORY
    assert project.records()[0]["infeasible"] is True


BESIDE = f"""
    import mmap, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            folder = Path(__file__).parent
            if trial.number == 0:
                while not (folder / "beside").exists():
                    time.sleep(0.02)
                (folder / "eats").touch()
                eaten = mmap.mmap(-1, {2 * LIMIT})
                for page in range(0, len(eaten), 4096):
                    eaten[page] = 1
            (folder / "beside").touch()
            while not (folder / "has-failed").exists():
                time.sleep(0.02)
            return {{"val_loss": 1.0}}
"""


@pytest.mark.oom
def test_samplers_learn_nothing_from_a_kill_for_memory_that_other_trials_may_have_taken(
    tmp_path: Path, small_cgroup: Path
) -> None:
    project = Project(tmp_path, BESIDE, n_trials=3)
    join = f'echo $$ > {small_cgroup}/cgroup.procs && exec "$@"'
    running = subprocess.Popen(["sh", "-c", join, "sh", *project.command("--local", "2")], cwd=tmp_path)
    try:
        wait_until(lambda: (tmp_path / "eats").exists() and project.states().get("FAIL", 0) == 1, "trial 0 to fail")
        (tmp_path / "has-failed").touch()
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.wait()
    record = project.records()[0]
    assert record["cause"] == worker_pool.KILLED_FOR_MEMORY
    assert "infeasible" not in record
