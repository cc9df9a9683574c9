"""The benchmark's cells are run as they are planned, by the packages that are there in every environment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cells import OPTUNA_KIND, Cell
from benchmarks.measure import measure
from benchmarks.stores import Stores


@pytest.mark.parametrize("peer", OPTUNA_KIND)
def test_a_study_with_finished_trials_goes_on_with_new_ones(peer: str) -> None:
    cell = Cell("gap", peer, "sqlite", 1, finished=50, trials=3, seconds=0.1)
    with Stores() as stores:
        figures = [measure(each, stores, 60) for each in (cell, replace(cell, seed=1))]
    assert [found["count"] for found in figures] == [2, 2]
