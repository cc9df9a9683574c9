"""What the benchmark makes of its trials' notes, and how it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import notes
from benchmarks.cells import PEERS, Cell, plan
from benchmarks.table import table


def trial(pid: int, begin: float, end: float, value: float = 0.0) -> dict[str, Any]:
    return {"pid": pid, "begin": begin, "end": end, "value": value}


def test_gaps_are_taken_within_a_slot() -> None:
    found = [trial(1, 0, 10), trial(2, 0, 20), trial(1, 11, 15), trial(2, 23, 30)]
    assert sorted(notes.gaps(found, 2)) == [1, 3]


def test_processes_of_one_trial_each_take_the_slots_in_turn() -> None:
    found = [trial(1, 0, 10), trial(2, 0, 20), trial(3, 11, 15), trial(4, 18, 30), trial(5, 22, 30)]
    assert notes.gaps(found, 2) == [1, 3, 2]


def test_a_trial_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    lines = [json.dumps({"pid": 1, "begin": 0}), json.dumps(trial(1, 0, 1)), '{"pid": 1, "be']
    (tmp_path / "1.jsonl").write_text("\n".join(lines))
    assert notes.read(tmp_path) == [trial(1, 0, 1)]
    assert notes.begun(tmp_path) == [{"pid": 1, "begin": 0}]


def test_target_is_reached_by_the_first_trial_that_ends_there() -> None:
    found = [trial(1, 0, 10, 0.5), trial(2, 0, 20, 0.05), trial(1, 10, 15, 0.3)]
    assert notes.to_target(found, 0.1, started=-5) == {"seconds": 25, "trials": 3, "best": 0.05}
    assert notes.to_target(found, 0.01, started=-5) == {"seconds": None, "trials": None, "best": 0.05}


def test_table_has_ratios_and_reasons() -> None:
    cell = Cell("gap", "aimlhpo", "sqlite", 8)
    text = table(
        [
            (cell, {"median": 0.01, "p99": 0.05}, None),
            (replace(cell, peer="optuna"), {"median": 0.2, "p99": 2.0}, None),
            (replace(cell, peer="ray"), None, "pip install ray: no network"),
        ],
        {"processor": "2 x a processor"},
    )
    assert "| idle gap, median | sqlite, 8 workers | 10 ms | 200 ms (x 20) |  |  | none |" in text
    assert "| idle gap, 99th percentile | sqlite, 8 workers | 50 ms | 2.00 s (x 40) |" in text
    assert "- Ray Tune, gap, sqlite, 8 workers: pip install ray: no network" in text


@pytest.mark.parametrize("full", [False, True])
def test_every_peer_is_compared_with_aimlhpo_in_its_row(full: bool) -> None:
    cells = plan(full=full)
    assert len(set(cells)) == len(cells)
    assert {cell.peer for cell in cells} == set(PEERS)
    assert {cell.row for cell in cells} == {cell.row for cell in cells if cell.peer == "aimlhpo"}
