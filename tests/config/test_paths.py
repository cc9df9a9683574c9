"""Readers see whole files only, and nothing is left lying about."""

from __future__ import annotations

import os
import stat
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from aimlhpo.config import paths
from aimlhpo.config.paths import replace_file


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    replace_file(path, "one\n")
    replace_file(path, "zwei ü\n")
    assert path.read_text(encoding="utf-8") == "zwei ü\n"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", "x", 0o644)
    replace_file(tmp_path / "b", "x", 0o600)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644 & ~umask
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600 & ~umask


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    replace_file(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_swept_later(tmp_path: Path) -> None:
    fresh, stale = tmp_path / ".a.host.1.tmp", tmp_path / ".a.host.2.tmp"
    for leftover in (fresh, stale):
        leftover.write_text("half")
    past = time.time() - 2 * paths.ABANDONED_AFTER
    os.utime(stale, (past, past))
    replace_file(tmp_path / "a", "x")
    assert sorted(os.listdir(tmp_path)) == [".a.host.1.tmp", "a"]


def _write_often(path: Path, letter: str) -> None:
    for _ in range(50):
        replace_file(path, letter * 100_000)


def test_many_writers_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, "a" * 100_000)
    processes = [get_context("spawn").Process(target=_write_often, args=(path, letter)) for letter in "bcd"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        text = path.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert os.listdir(tmp_path) == ["a"]
