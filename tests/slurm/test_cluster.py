"""The virtual cluster behaves like a real one where the product depends on it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.crew import lives
from tests.slurm.cluster import COMMAND, Cluster, processes_of, run_cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

# Says that it started, and the signals that it gets, in a file of its own; named "stubborn", no signal ends it.
LISTENER = """#!/bin/bash
exec >> "$1" 2> /dev/null
trap "echo USR1" USR1
trap 'echo TERM; [ "$2" = stubborn ] || exit' TERM
echo "start ${SLURM_RESTART_COUNT-0}"
if [ -n "$SLURM_RESTART_COUNT" ]; then exit 0; fi
while true; do sleep 0.1; done
"""


@pytest.fixture
def listener(tmp_path: Path) -> tuple[str, ...]:
    """The words with which to submit the listener; the second is the file that it writes."""
    script = tmp_path / "listener.sh"
    script.write_text(LISTENER)
    return str(script), str(tmp_path / "heard")


def heard(listener: tuple[str, ...]) -> list[str]:
    file = Path(listener[1])
    return file.read_text().splitlines() if file.exists() else []


def submit(cluster: Cluster, listener: tuple[str, ...], *options: str) -> int:
    """Submit the listener; returns when it listens."""
    job = cluster.sbatch("--output=/dev/null", *options, *listener)
    wait_until(lambda: bool(heard(listener)), "the job's start")
    return job


def test_one_gpu_jobs_get_a_gpu_each(cluster: Cluster, tmp_path: Path) -> None:
    # Each waits for all the others, so that all eight run at the same time.
    wait = f'until [ "$(ls {tmp_path} | wc -l)" -ge 8 ]; do sleep 0.1; done'
    script = f'touch "{tmp_path}/$SLURMD_NODENAME-$CUDA_VISIBLE_DEVICES"; {wait}'
    job = cluster.sbatch("--array=0-7", "--ntasks=8", "--gres=gpu:v100:1", "--output=/dev/null", f"--wrap={script}")
    cluster.wait_for_end(job)
    assert {path.name for path in tmp_path.iterdir()} == {f"gpu{node}-{gpu}" for node in range(4) for gpu in (0, 1)}


def test_a_whole_node_job_sees_both_gpus(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    cluster.wait_for_end(cluster.sbatch("--gres=gpu:2", f"--output={log}", "--wrap=echo $CUDA_VISIBLE_DEVICES"))
    assert log.read_text() == "0,1\n"


def test_requeue_restarts_the_same_job(cluster: Cluster, listener: tuple[str, ...]) -> None:
    job = submit(cluster, listener)
    cluster.requeue(job)
    cluster.wait_for(lambda: "start 1" in heard(listener), "the restart")
    cluster.wait_for_end(job)
    assert heard(listener) == ["start 0", "TERM", "start 1"]


def test_the_urgent_partition_preempts_and_requeues(cluster: Cluster, listener: tuple[str, ...]) -> None:
    low = submit(cluster, listener, "--nodelist=gpu2", "--exclusive")
    high = cluster.sbatch("--partition=urgent", "--nodelist=gpu2", "--exclusive", "--output=/dev/null", "--wrap=true")
    cluster.wait_for_end(high)
    cluster.wait_for(lambda: "start 1" in heard(listener), "the restart")
    assert cluster.jobs(low)[0].restarts == 1
    assert "TERM" in heard(listener)


@pytest.mark.slow
def test_the_end_of_the_walltime_signals_then_kills(cluster: Cluster, listener: tuple[str, ...]) -> None:
    job = submit(cluster, (*listener, "stubborn"), "--time=10", "--signal=B:USR1@600")
    cluster.wait_for(lambda: "USR1" in heard(listener), "the warning")
    assert cluster.state(job) == "RUNNING"
    cluster.end_in(job, 1)
    cluster.wait_for_state(job, "TIMEOUT")
    assert heard(listener) == ["start 0", "USR1", "TERM"]


def test_a_signal_can_be_sent_at_once(cluster: Cluster, listener: tuple[str, ...]) -> None:
    job = submit(cluster, listener)
    cluster.signal_batch(job, signal.SIGUSR1)
    cluster.wait_for(lambda: "USR1" in heard(listener), "the signal")


def test_a_node_set_down_requeues_its_job(cluster: Cluster, listener: tuple[str, ...]) -> None:
    submit(cluster, listener, "--nodelist=gpu3")
    cluster.down_node("gpu3")
    assert "gpu3 down" in cluster.run("sinfo", "-hN", "-p", "main", "-o", "%N %T").stdout
    cluster.resume_node("gpu3")
    cluster.wait_for(lambda: "start 1" in heard(listener), "the restart")


def test_jobs_outlive_the_controller(cluster: Cluster, listener: tuple[str, ...]) -> None:
    job = submit(cluster, listener)
    cluster.kill_controller()
    assert "Unable to contact" in cluster.run("squeue", check=False).stderr
    cluster.start_controller()
    assert cluster.state(job) == "RUNNING"


def test_a_node_without_power_comes_back(cluster: Cluster, listener: tuple[str, ...]) -> None:
    submit(cluster, listener, "--nodelist=gpu1")
    cluster.kill_node("gpu1")
    assert not [line for line in processes_of(cluster.directory) if "gpu1" in line]
    assert not _runs(listener[0])
    cluster.resume_node("gpu1")


def _runs(word: str) -> bool:
    return subprocess.run(["pgrep", "-f", word], capture_output=True).returncode == 0


def _is_of_a_cluster(path: Path) -> bool:
    return "slurm" in path.name or "munge" in path.name


def _is_of_another_test(path: Path, cluster: Cluster) -> bool:
    """Tests in other processes bring up and take down clusters at the same time, each in a directory of its own."""
    return path.name.startswith("aimlhpo-slurm-") and path != cluster.directory


def test_clusters_live_side_by_side_and_leave_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = set(Path("/tmp").iterdir()) | set(Path("/run").iterdir())
    with Cluster("--nodes=2", "--gpus=0", "--no-requeue") as other:
        assert not set(cluster.ports()["nodes"]) & set(other.ports()["nodes"])  # type: ignore[call-overload]
        assert len(other.run("sinfo", "-hN", "-p", "main").stdout.splitlines()) == 2
        sleep = f"sleep {1_000_000 + os.getpid()}"  # no other test's
        other.sbatch(f"--chdir={tmp_path}", "--output=/dev/null", f"--wrap=setsid {sleep} & {sleep}")
        wait_until(lambda: _runs(sleep), "the job's start")
        assert cluster.squeue() == ""
    assert not _runs(sleep)
    assert processes_of(other.directory) == []
    left = (set(Path("/tmp").iterdir()) | set(Path("/run").iterdir())) - before
    assert [path for path in left if _is_of_a_cluster(path) and not _is_of_another_test(path, other)] == []


def test_it_goes_down_with_the_process_it_watches(tmp_path: Path) -> None:
    directory = Path(f"/tmp/aimlhpo-slurm-watch-{os.getpid()}")
    script = f"'{sys.executable}' '{COMMAND}' up --nodes 1 --watch-pid $$ --dir {directory} && kill -9 $$"
    assert subprocess.run(["bash", "-c", script], capture_output=True).returncode == -signal.SIGKILL
    wait_until(lambda: not directory.exists() and processes_of(directory) == [], "the end of the cluster")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_start_leaves_nothing(number: signal.Signals) -> None:
    directory = Path(f"/tmp/aimlhpo-slurm-interrupt-{os.getpid()}")
    while not _interrupt_start(directory, number):
        run_cluster("down", "--dir", str(directory))
    wait_until(lambda: not directory.exists() and processes_of(directory) == [], "the end of the cluster")


def _interrupt_start(directory: Path, number: signal.Signals) -> bool:
    """Whether the signal came before the cluster was up."""
    up = subprocess.Popen(
        [sys.executable, str(COMMAND), "up", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background jobs
    )
    wait_until(lambda: (directory / "run" / "slurmctld.pid").exists(), "slurmctld's start")
    up.send_signal(number)
    return up.wait() != 0


def test_a_killed_cluster_is_replaced() -> None:
    with Cluster("--nodes=1") as cluster:
        supervisor = int((cluster.directory / "run" / "supervisor.pid").read_text())
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not lives(supervisor), "the supervisor's end")
        run_cluster("up", "--dir", str(cluster.directory), "--nodes=2")
        assert len(cluster.run("sinfo", "-hN", "-p", "main").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["env", "--dir", "/nowhere"], "no cluster in /nowhere"),
        (["up", "--dir", "/etc"], "holds other files"),
        (["up", "--dir", "/tmp/with space"], "can hold no space"),
        (["up", "--dir", f"/tmp/{'x' * 100}"], "too long"),
    ],
)
def test_mistakes_are_told(argv: list[str], words: str) -> None:
    done = run_cluster(*argv, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    daemon = tmp_path / "slurmctld"
    daemon.write_text("#!/bin/sh\necho the disk is on fire >&2; exit 1\n")
    daemon.chmod(0o755)
    up = [sys.executable, str(COMMAND), "up", "--nodes=1", "--dir", str(tmp_path / "c")]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(up, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the disk is on fire" in done.stderr
    assert processes_of(tmp_path / "c") == []
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_accounting_remembers_finished_jobs() -> None:
    with Cluster("--nodes=1", "--accounting") as cluster:
        job = cluster.sbatch("--gres=gpu:1", "--output=/dev/null", "--wrap=exit 3")
        cluster.wait_for_end(job)
        sacct = ("sacct", "-n", "-P", "-X", "-j", str(job), "-o", "State,ExitCode")
        cluster.wait_for(lambda: cluster.run(*sacct).stdout == "FAILED|3:0\n", "sacct's word")
