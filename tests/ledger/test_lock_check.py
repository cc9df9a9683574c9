"""Nodes between which file locks do not work are found out by the leases of living agents."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path

import pytest

from aimlhpo.errors import StorageError
from aimlhpo.ledger.leases import Holder, Lease, verify_shared_locks

GRACE = 180.0  # seconds; a third of it is waited only where something is wrong
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
        verify_shared_locks(tmp_path, ME, GRACE)
    assert "flock" in str(told.value)


def test_one_that_was_stopped_until_its_time_was_over_looks_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "far.json"
    path.write_text(dumps(asdict(FAR)))
    times = itertools.count(step=GRACE)

    def clock() -> float:
        now = next(times)
        os.utime(path, (now, now))  # the other agent goes on meanwhile
        return now

    monkeypatch.setattr("time.monotonic", clock)
    with pytest.raises(StorageError, match="node7"):
        verify_shared_locks(tmp_path, ME, GRACE)


def test_the_agent_that_came_first_goes_on(tmp_path: Path) -> None:
    with renewed_without_lock(tmp_path, replace(FAR, started=ME.started + 1)):
        verify_shared_locks(tmp_path, ME, GRACE)


def test_locks_that_work_are_not_complained_about(tmp_path: Path) -> None:
    with Lease(tmp_path, FAR, GRACE), Lease(tmp_path, ME, GRACE):
        verify_shared_locks(tmp_path, ME, GRACE)


def test_an_agent_that_has_just_died_is_no_sign_of_broken_locks(tmp_path: Path) -> None:
    (tmp_path / "far.json").write_text(dumps(asdict(FAR)))
    verify_shared_locks(tmp_path, ME, 0.3)


def test_agents_of_this_host_are_not_asked(tmp_path: Path) -> None:
    with renewed_without_lock(tmp_path, Holder("beside", started=1.0)):
        verify_shared_locks(tmp_path, ME, GRACE)
