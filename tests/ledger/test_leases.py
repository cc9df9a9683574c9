"""Who counts as dead, and who does not; and how leases show that file locks do not hold between nodes."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path

import pytest

from aimlhpo.errors import StorageError
from aimlhpo.ledger.leases import Holder, Lease, Registry, _now, holders, verify_shared_locks

GRACE = 600.0

HOLDER = """
import sys, time
from pathlib import Path
from aimlhpo.ledger.leases import Holder, Lease
with Lease(Path(sys.argv[1]), Holder("other"), 600.0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds a lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_living_agent_is_not_dead(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    registry = Registry(tmp_path, GRACE)
    assert not registry.is_dead("other")
    assert [holder.pid for holder in registry.living()] == [other.pid]


def test_killed_agent_is_dead_at_once(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    assert Registry(tmp_path, GRACE).is_dead("other")


def test_stopped_agent_is_dead_after_the_grace_period(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    registry = Registry(tmp_path, GRACE)
    other.send_signal(signal.SIGSTOP)
    assert not registry.is_dead("other")
    age(tmp_path / "other.json", GRACE + 1)
    assert registry.is_dead("other")


def test_agent_of_another_host_is_judged_only_by_the_age_of_its_lease(tmp_path: Path) -> None:
    registry = Registry(tmp_path, GRACE)
    with Lease(tmp_path, Holder("far", boot="another host"), GRACE) as lease:
        lease._fd, held = os.dup(lease._fd), lease._fd
        os.close(held)
        assert not registry.is_dead("far")
        age(lease.path, GRACE + 1)
        assert registry.is_dead("far")


def test_agent_without_lease_is_dead(tmp_path: Path) -> None:
    assert Registry(tmp_path, GRACE).is_dead("nobody")


def test_ended_agent_leaves_no_lease(tmp_path: Path) -> None:
    with Lease(tmp_path, Holder("brief"), GRACE):
        assert [holder.agent for holder in holders(tmp_path)] == ["brief"]
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_only_the_leases_of_dead_agents(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    registry = Registry(tmp_path, GRACE)
    registry.sweep()
    assert registry.living()
    other.kill()
    other.wait()
    registry.sweep()
    assert list(tmp_path.iterdir()) == []


def test_lease_lapses_when_it_was_not_renewed_and_can_be_restored(tmp_path: Path) -> None:
    lease = Lease(tmp_path, Holder("slow"), GRACE)
    with lease:
        assert lease.valid()
        lease._renewed -= GRACE + 1  # as after a long SIGSTOP
        lease.renew()
        assert not lease.valid(), "a renewal must not hide that others may have taken over"
        lease.path.unlink()
        lease.restore()
        assert not lease.valid(), "others may have taken what is not confirmed yet"
        lease.confirmed()
        assert lease.valid()
        assert not Registry(tmp_path, GRACE).is_dead("slow")
        assert [holder.agent for holder in holders(tmp_path)] == ["slow"]


class Clock:
    """The time that leases go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("aimlhpo.ledger.leases._now", clock)
    return clock


def have_next_touch_take(monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float) -> None:
    """As where a mounted file system is away for so long."""
    touch = os.utime

    def late(fd: int) -> None:
        clock.now += seconds
        monkeypatch.setattr("os.utime", touch)
        touch(fd)

    monkeypatch.setattr("os.utime", late)


@pytest.mark.parametrize(("before", "hangs"), [(0.0, 1.1), (0.6, 0.6)])
def test_renewal_that_hangs_until_the_grace_period_is_over_does_not_hide_the_lapse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, before: float, hangs: float
) -> None:
    with Lease(tmp_path, Holder("cut off"), GRACE) as lease:
        clock.now += before * GRACE
        have_next_touch_take(monkeypatch, clock, hangs * GRACE)
        lease.renew()
        assert not lease.valid()


def test_renewal_counts_from_before_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    with Lease(tmp_path, Holder("slow"), GRACE) as lease:
        have_next_touch_take(monkeypatch, clock, 0.6 * GRACE)
        lease.renew()
        assert lease.valid()
        clock.now += 0.6 * GRACE
        assert not lease.valid(), "the file may be as old as the call is"


def test_lease_whose_file_others_have_removed_has_lapsed(tmp_path: Path, clock: Clock) -> None:
    with Lease(tmp_path, Holder("removed"), GRACE) as lease:
        lease.path.unlink()
        lease.renew()
        assert not lease.valid()
        lease.restore()
        lease.confirmed()
        assert lease.valid()
        assert not Registry(tmp_path, GRACE).is_dead("removed")


def test_lease_has_lapsed_where_the_server_knows_its_file_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with Lease(tmp_path, Holder("removed"), GRACE) as lease:
        monkeypatch.setattr("os.utime", fail)
        lease.renew()
        assert not lease.valid()


def test_lease_that_is_removed_while_claims_are_confirmed_has_lapsed_again(tmp_path: Path, clock: Clock) -> None:
    with Lease(tmp_path, Holder("back"), GRACE) as lease:
        clock.now += GRACE + 1
        lease.restore()
        lease.path.unlink()  # by one who had judged before
        lease.confirmed()
        assert not lease.valid()


@pytest.mark.parametrize("renewed", [False, True])
def test_claims_that_take_long_to_confirm_need_a_lease_that_is_renewed_meanwhile(
    tmp_path: Path, clock: Clock, renewed: bool
) -> None:
    with Lease(tmp_path, Holder("back"), GRACE) as lease:
        clock.now += GRACE + 1
        lease.restore()
        for _ in range(2):
            clock.now += 0.6 * GRACE
            if renewed:
                lease.renew()
        lease.confirmed()
        assert lease.valid() is renewed


def opened(path: Path) -> list[int]:
    """This process's descriptors of the file under the name."""
    descriptors = (int(name) for name in os.listdir("/proc/self/fd"))
    return [fd for fd in descriptors if os.path.realpath(f"/proc/self/fd/{fd}").startswith(str(path))]


def test_restoring_leaves_no_descriptor_open_and_none_for_children(tmp_path: Path) -> None:
    with Lease(tmp_path, Holder("removed"), GRACE) as lease:
        assert opened(lease.path) == [lease._fd]
        lease.path.unlink()
        lease.restore()
        assert opened(lease.path) == [lease._fd]
        assert not os.get_inheritable(lease._fd)


def test_time_of_leases_goes_on_while_the_machine_is_suspended_and_does_not_jump(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.clock_gettime", {time.CLOCK_BOOTTIME: 5.0}.__getitem__)
    assert _now() == 5.0


def test_agent_of_a_requeued_job_counts_the_one_before_as_dead(tmp_path: Path) -> None:
    with Lease(tmp_path, Holder("before", boot="another host", job="7_1", restarts=0), GRACE):
        assert Registry(tmp_path, GRACE, Holder("after", job="7_1", restarts=1)).is_dead("before")
        assert not Registry(tmp_path, GRACE, Holder("beside", job="7_2", restarts=1)).is_dead("before")


@pytest.mark.parametrize(
    ("runs", "age_in_graces", "dead"),
    [
        (True, 1.5, False),
        (True, 5.5, True),
        (False, 0.6, True),
        (False, 0.1, False),
        (None, 0.6, False),
        (None, 1.5, True),
    ],
)
def test_what_the_cluster_says_of_a_job_changes_the_wait(
    tmp_path: Path, runs: bool | None, age_in_graces: float, dead: bool
) -> None:
    with Lease(tmp_path, Holder("far", boot="another host", job="7_1"), GRACE) as lease:
        age(lease.path, age_in_graces * GRACE)
        assert Registry(tmp_path, GRACE, query_job_state=lambda holder: runs).is_dead("far") is dead


LOCK_GRACE = 180.0  # seconds; a third of it is waited only where something is wrong
FAR = Holder("far", host="node7", boot="another host", started=1.0)
ME = Holder("me")


@contextmanager
def renewed_without_lock(directory: Path, holder: Holder) -> Iterator[None]:
    """An agent on a node whose locks nobody else sees: its lease is renewed, and can be locked here."""
    path = directory / f"{holder.agent}.json"
    path.write_text(dumps(asdict(holder)))
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_living_agent_whose_lock_can_be_taken_tells_that_locks_do_not_work(tmp_path: Path) -> None:
    with renewed_without_lock(tmp_path, FAR), pytest.raises(StorageError, match="node7") as told:
        verify_shared_locks(tmp_path, ME, LOCK_GRACE)
    assert "flock" in str(told.value)


def test_agent_that_was_stopped_until_the_deadline_still_looks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "far.json"
    path.write_text(dumps(asdict(FAR)))
    times = itertools.count(step=LOCK_GRACE)

    def clock() -> float:
        now = next(times)
        os.utime(path, (now, now))  # the other agent goes on meanwhile
        return now

    monkeypatch.setattr("time.monotonic", clock)
    with pytest.raises(StorageError, match="node7"):
        verify_shared_locks(tmp_path, ME, LOCK_GRACE)


def test_the_agent_that_came_first_goes_on(tmp_path: Path) -> None:
    with renewed_without_lock(tmp_path, replace(FAR, started=ME.started + 1)):
        verify_shared_locks(tmp_path, ME, LOCK_GRACE)


def test_locks_that_work_are_not_complained_about(tmp_path: Path) -> None:
    with Lease(tmp_path, FAR, LOCK_GRACE), Lease(tmp_path, ME, LOCK_GRACE):
        verify_shared_locks(tmp_path, ME, LOCK_GRACE)


def test_an_agent_that_has_just_died_is_no_sign_of_broken_locks(tmp_path: Path) -> None:
    (tmp_path / "far.json").write_text(dumps(asdict(FAR)))
    verify_shared_locks(tmp_path, ME, 0.3)


def test_agents_of_this_host_are_not_asked(tmp_path: Path) -> None:
    with renewed_without_lock(tmp_path, Holder("beside", started=1.0)):
        verify_shared_locks(tmp_path, ME, LOCK_GRACE)
