"""Fixtures for every test: storages of each kind, empty, on real servers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from aimlhpo.storage.locks import locked
from tests.files import Files
from tests.servers import MariaDB, PostgreSQL, Redis

pytest_plugins = ["tests.slurm.plugin"]

# An example that takes longer than 200 ms, or many that do, would otherwise be an error: here it is a busy machine.
hypothesis.settings.register_profile("any-pace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any-pace")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STORAGE_KINDS = ("sqlite", "journal", "postgresql", "redis")


@pytest.fixture(autouse=True)
def kill_count(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests marked `oom`, those of all processes one at a time: they share a cgroup, where the kernel counts."""
    if request.node.get_closest_marker("oom") is None:
        yield
        return
    with locked(tmp_path_factory.getbasetemp().parent / "oom.lock"):
        yield


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A cluster shared by the tests of one process; do not stop it."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A server shared by the tests of one process; do not stop it."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MariaDB]:
    """A server shared by the tests of one process; do not stop it."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """A cluster of the test's own, which it may stop, kill and restart."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server of the test's own, which it may stop, kill and restart."""
    with Redis() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL) -> str:
    return postgresql_server.url()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    return redis_server.url()


@pytest.fixture
def make_storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Gives the URL of a new, empty storage of a kind: "sqlite", "journal", "postgresql", "redis" or "mysql"."""
    made = 0

    def make(kind: str) -> str:
        nonlocal made
        made += 1
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/storage-{made}.db"
        if kind == "journal":
            return f"journal:///{tmp_path}/storage-{made}.journal"
        return str(request.getfixturevalue(f"{kind}_server").url())

    return make


@pytest.fixture(params=STORAGE_KINDS)
def storage_url(request: pytest.FixtureRequest, make_storage_url: Callable[[str], str]) -> str:
    """The URL of a new, empty storage; the test runs once with each kind."""
    return make_storage_url(request.param)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A pair of YAML files that are right, in the current directory."""
    monkeypatch.chdir(tmp_path)
    return Files(tmp_path).write()
