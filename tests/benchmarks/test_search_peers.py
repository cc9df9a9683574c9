"""Other packages in the benchmark of the search: the clock drives them, and a stand-in's program, as they ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.environment import PeerMissing
from benchmarks.search.__main__ import main
from benchmarks.search.figures import by_method, row_of
from benchmarks.search.methods import DEFAULT, METHODS, OPTUNA, OPTUNAS_OTHERS
from benchmarks.search.peers import PEERS, Package, Peer, PeerFailed, installed
from benchmarks.search.simulation import Asked, Method, Progress, Search, search
from benchmarks.search.task import Task, load, unit_row

SPACE: list[dict[str, Any]] = [
    {"name": "rate", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "kind", "type": "categorical", "choices": ["a", True, 3, None]},
    {"name": "layers", "type": "int", "low": 1, "high": 4, "when": {"kind": ["a", 3]}},
]
EPOCHS = 4

# Halves: of two trials of two epochs, the better one goes on.
PROGRAM = """
import sys
from serving import serve
print("what a package prints is no answer")

class Halving:
    def __init__(self, request):
        self.request, self.number, self.values, self.ended, self.promoted = request, 0, {}, {}, set()
    def ask(self):
        print("asked")
        pairs = [pair for pair in ((n, n + 1) for n in range(0, self.number, 2)) if set(pair) <= set(self.ended)]
        for pair in pairs:
            best = min(pair, key=self.ended.get)
            if best not in self.promoted:
                self.promoted.add(best)
                return best, self.values[best], self.request["epochs"]
        if self.number % 2 == 0 and self.number >= 2 and set(range(self.number)) - set(self.ended):
            return None  # waits for the pair
        kinds = self.request["space"][1]["choices"]
        values = {"rate": 10 ** -(self.number % 5), "kind": kinds[self.number % 4], "layers": 1 + self.number % 4}
        self.values[self.number] = values
        self.number += 1
        return self.number - 1, values, 2
    def report(self, number, epoch, value):
        stops = self.request["method"] == "stops" and epoch == 1
        if stops:
            self.ended[number] = value
            self.promoted.add(number)
        return stops
    def finish(self, number, epoch, value):
        self.ended[number] = value
    def failed(self, number):
        raise MemoryError(f"trial {number} failed")

serve(Halving)
"""


def task(name: str = "small", **more: Any) -> Task:
    def curves(rows: Any) -> Any:
        return (rows[:, :1] - 0.4) ** 2 + 1 / np.arange(1, EPOCHS + 1)

    return Task(name, SPACE, EPOCHS, curves, lambda rows: np.ones(len(rows)), np.empty((0, 1)), np.empty(0), **more)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    program = tmp_path / "halving.py"
    program.write_text(PROGRAM)
    return Package("stand-in", program, distribution="optuna")


def test_a_programs_trials_go_on_where_they_were(package: Package) -> None:
    done = search(Peer("halving", package, "halves").as_method(), task(), 2, 6 * EPOCHS, 0)
    # A pair costs 4 epochs, and what its better half then trains costs 2 more: 4 pairs in 24 epochs.
    assert done.complete == pytest.approx(4, abs=1)
    assert done.trials == pytest.approx(8, abs=1)
    again = search(Peer("halving", package, "halves").as_method(), task(), 2, 6 * EPOCHS, 0)
    assert again == done


def test_a_program_may_stop_trials(package: Package) -> None:
    done = search(Peer("halving", package, "stops").as_method(), task(), 2, 12, 0)
    assert done.complete == 0
    assert done.trials >= 5


def test_a_programs_choices_are_those_of_the_task(package: Package) -> None:
    seen: list[dict[str, Any]] = []
    searcher = Peer("halving", package, "halves").as_method().start(0, task(), 6, 2)
    for _ in range(2):
        asked = searcher.ask()
        assert asked is not None
        seen.append(dict(asked.values))
        searcher.finish(asked, 1, 0.0)
    assert seen == [{"rate": 1.0, "kind": "a", "layers": 1}, {"rate": 0.1, "kind": True}]
    assert all(unit_row(SPACE, values).min() >= -1 for values in seen)


def test_a_program_that_fails_says_why(package: Package) -> None:
    tight = task("tight", fits=lambda rows: np.zeros(len(rows), bool))
    with pytest.raises(PeerFailed, match=r"(?s)halving.py ended with 1 at 'failed'.*MemoryError: trial 0 failed"):
        search(Peer("halving", package, "fails").as_method(), tight, 2, 12, 0)


def test_a_searcher_that_leaves_all_slots_idle_is_told() -> None:
    class Idle:
        def ask(self) -> None:
            return None

    with pytest.raises(RuntimeError, match="idle has nothing to train after 0 of 12 epochs"):
        search(Method("idle", lambda *_: Idle()), task(), 2, 12, 0)  # type: ignore[arg-type]


def test_a_searcher_cannot_ask_for_epochs_that_there_are_not() -> None:
    class Greedy:
        def ask(self) -> Asked:
            return Asked(0, {"rate": 0.1, "kind": "a", "layers": 1}, EPOCHS + 1)

    with pytest.raises(ValueError, match="greedy asks for epoch 5 of trial 0, which has 0 of 4"):
        search(Method("greedy", lambda *_: Greedy()), task(), 2, 12, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTUNAS_OTHERS)
def test_optunas_other_samplers_are_driven(name: str) -> None:
    done = search(METHODS[name], task(), 2, 14 * EPOCHS, 0)
    assert done.complete >= 5
    assert done.progress[-1].regret < 0.5


def test_a_peer_that_cannot_be_installed_is_left_out_and_the_others_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: Package
) -> None:
    def refuse(name: str, requirement: str) -> str:
        raise PeerMissing(f"pip install {requirement}: no network")

    monkeypatch.setattr("benchmarks.search.peers.environment", refuse)
    there, missing = installed(["smac Hyperband"])
    assert (there, missing) == ([], ["smac Hyperband: pip install smac>=2.4.1: no network"])
    file, out = tmp_path / "small.npz", tmp_path / "out.json"
    x = np.column_stack([10 ** np.random.default_rng(0).uniform(-4, 0, 60), np.tile([1, 3], 30), np.full(60, np.nan)])
    np.savez(file, space=json.dumps(SPACE), x=x, y=np.log10(x[:, :1]) ** 2 + 1 / np.arange(1, EPOCHS + 1))
    assert load(file).epochs == EPOCHS
    arguments = ["--task", str(file), "--workers", "2", "--seeds", "2", "--budget", "8", "--json", str(out)]
    main([*arguments, "--peers"])
    assert {row["method"] for row in json.loads(out.read_text())} == {DEFAULT, OPTUNA, *OPTUNAS_OTHERS}
    captured = capsys.readouterr()
    assert captured.err.count("left out: ") == len(PEERS)
    assert f"| {OPTUNA} | 2 | 1, 2 |" in captured.out


def test_methods_are_compared_on_the_tasks_that_both_were_run_on() -> None:
    def row(task: str, method: str, *epochs: int | None) -> dict[str, Any]:
        searches = [Search([] if e is None else [Progress(e, 1.0, 0.008)], 1, 1) for e in epochs]
        return row_of(task, method, 8, 100, searches)

    rows = [row("a", OPTUNA, 50, 50), row("b", OPTUNA, None, None), row("a", "peer", 25, 25)]
    lines = by_method(rows).splitlines()[2:]
    assert lines == [
        "| optuna default | 8 | 2, 2 | 1.00 | 2 of 4 | 1.00 | 1.00 | 1.00 | 1.00, 0.50, 0.50 |",
        "| peer | 8 | 1, 2 | 0.25 | 2 of 2 | 0.50 | 0.25 | 0.50 | 0.01, 0.01, 0.01 |",
    ]
