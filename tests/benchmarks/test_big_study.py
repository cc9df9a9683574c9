"""The large studies that benchmarks are run on are such as agents write."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

from aimlhpo.storage.attributes import record_of
from benchmarks.big_study import DISTRIBUTIONS, big_project, ended_trials


def test_big_study_is_read_as_it_was_made(tmp_path: Path, storage_url: str) -> None:
    project = big_project(tmp_path / "p", storage_url, trials=60, reports=3)
    trials = project.study().trials
    for trial, made in zip(trials, ended_trials(60, 3), strict=True):
        assert (trial.number, trial.state, trial.value) == (made.number, made.state, made.value)
        assert trial.datetime_complete is not None
        assert abs(trial.datetime_complete.astimezone(UTC).replace(tzinfo=None) - made.end) < timedelta(minutes=10)
        assert trial.intermediate_values == dict(enumerate(made.reports))
        assert trial.params == {name: kind.to_external_repr(made.params[name]) for name, kind in DISTRIBUTIONS.items()}
        assert (record_of(trial), trial.user_attrs) == (made.record, made.metrics)
    assert len(project.states()) == 3
