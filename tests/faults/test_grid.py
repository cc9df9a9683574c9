"""A full grid whose workers and agents are killed: every combination has one result."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.crew import Crew

pytestmark = pytest.mark.faults
GRID = {
    "model:x": {"type": "linear", "settings": {"name": "x", "start": 0.0, "end": 0.5, "step": 0.1}},
    "model:units": {"type": "multiple", "settings": {"name": "units", "values": [1, 2, 4, 8, 16, 32]}},
}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_six_by_six_over_eight_workers_with_five_kills(tmp_path: Path, kind: str) -> None:
    url = {"sqlite": f"sqlite:///{tmp_path}/s.db", "journal": f"journal:///{tmp_path}/s.journal"}[kind]
    with Crew(tmp_path, 2, 4, seconds=0.6, storage=url, n_trials=36, sampler=None, parameters=GRID) as crew:
        crew.hold(28)
        begun = 4
        for kill in (crew.kill_worker, crew.kill_agents, crew.kill_worker, crew.kill_agents, crew.kill_worker):
            crew.running(begun)
            crew.staff()
            kill()
            begun += 5
        crew.finish()
        trials = crew.study.get_trials()
    complete = [json.dumps(trial.params, sort_keys=True) for trial in trials if trial.state.name == "COMPLETE"]
    assert Counter(complete).most_common(1)[0][1] == 1
    assert len(complete) == 36
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    assert len(crew.killed) >= 5
