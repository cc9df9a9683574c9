"""The fixture `cluster`, for every test; what uses it runs in one process of a parallel run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """4 nodes of 16 CPUs and 2 pretended GPUs, for all tests of this process."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm_cluster: Cluster) -> Iterator[Cluster]:
    """The same, empty and whole: what the test left running ends with the test."""
    yield slurm_cluster
    slurm_cluster.drain()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a cluster, and keep them together: one cluster serves them all."""
    for item in items:
        if "slurm_cluster" in getattr(item, "fixturenames", ()) or item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))
