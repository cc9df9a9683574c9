"""How processes on other nodes are started and ended; here "another node" is another process of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import Pipe
from pathlib import Path

import pytest

from aimlhpo.objective.messages import Assignment, NodeGroup, NodeLost, Setup, StudyInfo
from aimlhpo.processes import children, descendants, module_command
from aimlhpo.worker.devices import Slot, plan_slots, spread_over_nodes
from aimlhpo.worker.nodes import start_on_other_nodes
from aimlhpo.worker.ranks import Begin, NodesJoined, RankEnded, RankHandle
from tests.waiting import wait_until

OBJECTIVE = """
import os, signal, time
from pathlib import Path
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        signal.signal(signal.SIGTERM, lambda *given: Path(conf["here"], "told").touch())
        Path(conf["here"], "began").write_text(str(os.getpid()))
        while conf["hangs"]:
            time.sleep(0.05)
        names = [name for name in os.environ if name.startswith("AIMLHPO_LAUNCHER")]
        raise ValueError(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} knows {names}")
"""
DIES_BESIDE_A_CHILD = """
import os, time
from pathlib import Path
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        if os.fork() == 0:
            while not Path(conf["here"], "over").exists():
                time.sleep(0.1)
            os._exit(0)
        os.kill(os.getpid(), 9)
"""
HERE = ("env", "SLURMD_NODENAME=b")  # what starts a program "on node b"


@contextmanager
def second_rank(
    folder: Path, start: tuple[str, ...], hangs: bool = False, objective: str = OBJECTIVE
) -> Iterator[RankHandle]:
    with ranks_of_node_b(folder, 1, start, hangs, objective) as (handle,):
        yield handle


@contextmanager
def ranks_of_node_b(
    folder: Path, count: int, start: tuple[str, ...] = HERE, hangs: bool = False, objective: str = OBJECTIVE
) -> Iterator[list[RankHandle]]:
    (folder / "objective.py").write_text(objective)
    nodes = NodeGroup(("a", "b"), ("127.0.0.1", "127.0.0.1"), count, start, log=str(folder / "worker.log"))
    study = StudyInfo("s", ("minimize",), ("val_loss",))
    conf = {"here": str(folder), "hangs": hangs}
    setup = Setup(str(folder / "objective.py"), conf, "cpu", study, ranks=2 * count, nodes=nodes)
    handles = start_on_other_nodes(setup, range(count, 2 * count))
    try:
        yield handles
    finally:
        for handle in handles:
            handle.connection.close()


def begin(handle: RankHandle, folder: Path, hangs: bool = False) -> None:
    conf = {"here": str(folder), "hangs": hangs}
    handle.send(Begin(Assignment(0, 1, conf, {}, {}, {}, [], 0, ""), 1))


@pytest.fixture(autouse=True)
def meeting_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "1")


def listening_ports() -> set[int]:
    """The ports on which processes of this test listen on all interfaces."""
    opened = set()
    for entry in chain.from_iterable(Path("/proc").glob(f"{pid}/fd/*") for pid in descendants()):
        with suppress(OSError):  # it was closed meanwhile
            opened.add(os.readlink(entry))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in rows if row[3] == "0A" and row[1].startswith("00000000")]
    return {int(row[1].rpartition(":")[2], 16) for row in listening if f"socket:[{row[9]}]" in opened}


def test_a_rank_trains_and_knows_no_secret(tmp_path: Path) -> None:
    with second_rank(tmp_path, HERE) as rank:
        assert rank.connection.recv() == NodesJoined()
        begin(rank, tmp_path)
        ended = rank.connection.recv()
    assert ended.cause == "exception: ValueError: rank 1 of 2 knows []"
    assert "ValueError" in (tmp_path / "worker-rank-1.log").read_text()


def test_who_does_not_know_the_secret_is_kept_out(tmp_path: Path) -> None:
    """Strangers that say nothing, or something wrong, keep nobody else waiting."""
    before = listening_ports()  # of an earlier test's launcher, which is about to end
    script = 'until [ -e "$0/go" ]; do sleep 0.05; done; exec env SLURMD_NODENAME=b "$@"'
    with second_rank(tmp_path, ("sh", "-c", script, str(tmp_path))) as rank:
        wait_until(lambda: bool(listening_ports() - before), "the launcher to listen")
        strangers = []
        for port in listening_ports() - before:
            strangers += [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        strangers[0].sendall(b"\0\0\0\5hello" * 100)
        (tmp_path / "go").touch()
        assert rank.connection.recv() == NodesJoined()
        assert not listening_ports() - before  # all are there
        begin(rank, tmp_path)
        assert "rank 1 of 2" in rank.connection.recv().cause
    for stranger in strangers:
        stranger.close()


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (("sh", "-c", "echo no such partition >&2; exit 3"), "sh ended with exit code 3:\nno such partition"),
        (("no-such-srun",), "there is no no-such-srun on PATH"),
    ],
)
def test_what_cannot_be_started_is_told(tmp_path: Path, start: tuple[str, ...], told: str) -> None:
    with second_rank(tmp_path, start) as rank:
        ended = rank.connection.recv()
    assert ended == RankEnded(f"the trial's processes cannot be started on b: {told}")


def test_a_rank_that_cannot_be_started_leaves_the_others_of_its_node_alone(tmp_path: Path) -> None:
    (tmp_path / "worker-rank-3.log").mkdir()  # where its output is to go
    with ranks_of_node_b(tmp_path, 2) as (there, missing):
        assert missing.connection.recv().cause.startswith("its process was not started on node b: [Errno 21]")
        begin(there, tmp_path)
        assert "rank 2 of 4" in there.connection.recv().cause  # and nobody has said that all have joined


def test_a_rank_that_reads_nothing_keeps_no_other_from_its_messages(tmp_path: Path) -> None:
    with ranks_of_node_b(tmp_path, 2, hangs=True) as (stopped, other):
        assert stopped.connection.recv() == NodesJoined()
        begin(stopped, tmp_path, hangs=True)
        wait_until(lambda: bool(pid_of(tmp_path)), "the first rank to train")
        os.kill(pid_of(tmp_path), signal.SIGSTOP)
        for _ in range(8):
            stopped.connection.send_bytes(bytes(1 << 18))  # more than a pipe holds
        begin(other, tmp_path)
        assert other.connection.poll(60)
        assert "rank 3 of 4" in other.connection.recv().cause


def test_a_worker_says_which_rank_on_another_node_cannot_be_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "worker-rank-1.log").mkdir()
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    nodes = NodeGroup(("a", "b"), ("127.0.0.1", "127.0.0.1"), 1, HERE, log=str(tmp_path / "worker.log"))
    study = StudyInfo("s", ("minimize",), ("val_loss",))
    agent, worker = Pipe()
    with agent, worker:
        process = subprocess.Popen(
            module_command("aimlhpo.worker", worker.fileno(), os.getpid(), 0), pass_fds=[worker.fileno()]
        )
        agent.send(Setup(str(tmp_path / "objective.py"), {}, "cpu", study, ranks=2, nodes=nodes))
        assert process.wait(60) == 1
    assert "rank 1: its process was not started on node b" in capfd.readouterr().out


def test_a_lost_node_is_told_before_its_ranks(tmp_path: Path) -> None:
    with second_rank(tmp_path, HERE, hangs=True) as rank:
        assert rank.connection.recv() == NodesJoined()
        begin(rank, tmp_path, hangs=True)
        wait_until(lambda: bool(pid_of(tmp_path)), "the rank to train")
        trains = pid_of(tmp_path)
        keeper = int(Path(f"/proc/{trains}/stat").read_text().rpartition(")")[2].split()[1])
        variables = Path(f"/proc/{keeper}/environ").read_text().split("\0")
        secret = next(text.partition("=")[2] for text in variables if text.startswith("AIMLHPO_LAUNCHER_KEY="))
        assert not [line for line in command_lines() if secret in line]
        os.kill(keeper, 9)
        assert rank.connection.recv() == NodeLost("b")
        assert rank.connection.recv() == RankEnded("node b was lost")
    wait_until(lambda: not Path(f"/proc/{trains}").exists(), "the rank's end")


def test_the_death_of_a_rank_whose_child_lives_on_is_told(tmp_path: Path) -> None:
    with second_rank(tmp_path, HERE, objective=DIES_BESIDE_A_CHILD) as rank:
        assert rank.connection.recv() == NodesJoined()
        begin(rank, tmp_path)
        told = rank.connection.poll(60)
        (tmp_path / "over").touch()
        assert told
        assert rank.connection.recv() == RankEnded("its process was killed by signal 9")


def test_ranks_are_told_to_end_and_end_with_rank_0(tmp_path: Path) -> None:
    before = children()
    with second_rank(tmp_path, HERE, hangs=True) as rank:
        (launcher,) = children() - before
        assert rank.connection.recv() == NodesJoined()
        begin(rank, tmp_path, hangs=True)
        wait_until(lambda: bool(pid_of(tmp_path)), "the rank to train")
        os.kill(launcher, signal.SIGTERM)  # as the agent does with all processes of a worker
        wait_until((tmp_path / "told").exists, "the rank to be told")
    wait_until(lambda: not Path(f"/proc/{pid_of(tmp_path)}").exists(), "the rank's end")


def command_lines() -> list[str]:
    """Those of all processes, which everybody on the machine can read."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(file.read_text(errors="replace"))
    return found


def pid_of(folder: Path) -> int:
    """The process that trains, once it does."""
    file = folder / "began"
    return int(text) if file.exists() and (text := file.read_text()) else 0


def test_the_slots_of_a_job_of_four_nodes() -> None:
    slots = plan_slots(["4", "5", "6", "7"], cuda=True, gpus_per_worker=2, n_cpus=16)
    names, addresses = ["a", "b", "c", "d"], ["a.x", "b.x", "c.x", "d.x"]
    made = spread_over_nodes(slots, names, addresses, 2, ("srun",))
    assert [slot.index for slot in made] == [0, 1, 2, 3]
    assert [slot.nodes.names for slot in made if slot.nodes] == [("a", "b")] * 2 + [("c", "d")] * 2
    assert [slot.nodes.gpus for slot in made if slot.nodes] == [(0, 1), (2, 3)] * 2
    assert [slot.agent_address for slot in made] == [None, None, "a.x", "a.x"]
    assert {(slot.ranks, slot.gpu_share, slot.environment({})["OMP_NUM_THREADS"]) for slot in made} == {(4, 4.0, "4")}
    shared = {(one.index, other.index) for one in made for other in made if one.shares_gpus_with(other)}
    assert shared == {(index, index) for index in range(4)}
    assert not Slot(0).shares_gpus_with(Slot(1))
