"""Studies whose numbers are known, for the tests of the report."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.config.schema import Config
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import RECORD
from tests.project import Project

MARKUP = "</script><img src=http://198.51.100.1/x onerror=alert(1)>"
START = datetime(2026, 1, 1, 12, 0, 0)
PARAMETERS = {
    "model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}},
    "kind": {"type": "categorical", "settings": {"name": "kind", "choices": ["a", MARKUP]}},
}


def known_study(folder: Path, gpus: float = 0.5, trials: int = 19, **optuna_keys: Any) -> tuple[optuna.Study, Config]:
    """12 complete trials of 4 reports, 4 pruned after one, and 3 failed; 3600 s a report on `gpus`."""
    project = Project(folder, **{"storage": "journal", "parameters": PARAMETERS, **optuna_keys})
    config = project.config
    study = begin_study(config)
    config.write_snapshot()
    config.paths.logs.mkdir(exist_ok=True)
    log = "".join(f"line {line} of {MARKUP}\n" for line in range(100))
    (config.paths.logs / "w.log").write_text(log)
    several = len(config.optuna.metric) > 1
    for number in range(trials):
        state = TrialState.COMPLETE if number < 12 else TrialState.PRUNED if number < 16 else TrialState.FAIL
        reports = 4 if state == TrialState.COMPLETE else 1
        value = float((number * 7) % 12)
        record = {
            "metrics": {"note": MARKUP},
            "seconds": 3600.0 * reports,
            "gpu_seconds": 3600.0 * reports * gpus,
            "cause": {16: "exception: ValueError: 1", 17: "exception: ValueError: 2", 18: "out of memory"}.get(number),
            "error": MARKUP if number == 16 else None,
            "worker": f"host:agent-{number % 2}:0",
            "peak_memory_mb": 500.0 + number,
            "log": "logs/w.log",
            "log_offset": 0 if number < 16 else len(log) // 2,
        }
        trial = create_trial(
            state=state,
            values=None if state == TrialState.FAIL else [value, 12.0 - value] if several else [value],
            params={"x": value / 12, "kind": ["a", MARKUP][number % 2]},
            distributions=config.space.distributions,
            intermediate_values={} if several else {step: value + 4 - step for step in range(reports)},
            system_attrs={RECORD: record} | {f"constraints:{text}": value - 6 for text in config.optuna.constraints},
        )
        trial.datetime_start = START + timedelta(hours=number)
        trial.datetime_complete = trial.datetime_start + timedelta(hours=reports)
        study.add_trial(trial)
    return study, config
