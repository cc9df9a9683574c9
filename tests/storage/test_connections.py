"""How many connections a study takes: servers have few, and a study may have many agents."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlhpo.errors import StudyError
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.study import load_study, study_exists
from tests.project import Project
from tests.servers import PostgreSQL
from tests.waiting import wait_until


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is not needed is given up at once, not when the collector comes by."""
    gc.disable()
    yield
    gc.enable()


def connections(server: PostgreSQL, url: str) -> int:
    name = url.rpartition("/")[2]
    return int(server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"))


def wait_for_at_most(most: int, server: PostgreSQL, url: str) -> None:
    """One that was closed is counted until the server has seen its end; one that was kept stays."""
    wait_until(lambda: connections(server, url) <= most, f"{most} connections")


def test_each_open_study_has_two_at_most(tmp_path: Path, postgresql_server: PostgreSQL, no_collector: None) -> None:
    url = postgresql_server.url()
    project = Project(tmp_path, storage=url)
    made = begin_study(project.config)
    loaded = load_study(project.config)
    assert len(made.trials) == len(loaded.trials) == 0
    wait_for_at_most(4, postgresql_server, url)


def test_what_is_not_there_keeps_none(tmp_path: Path, postgresql_server: PostgreSQL, no_collector: None) -> None:
    url = postgresql_server.url()
    project = Project(tmp_path, storage=url)
    for _ in range(5):
        assert not study_exists(project.config)
        with pytest.raises(StudyError):
            load_study(project.config)
    wait_for_at_most(0, postgresql_server, url)
