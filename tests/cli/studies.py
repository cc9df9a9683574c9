"""Studies for the tests of the verbs."""

from __future__ import annotations

import optuna

from aimlhpo.cli.main import main
from aimlhpo.search.warm_start import begin_study
from tests.project import Project

FAILING = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number % 2:
                raise ValueError("no luck, trial %d" % trial.number)
            return {"val_loss": conf["model"]["x"]}
"""
SLOW = """
    import time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            trial.report(1.5, 3)
            time.sleep(300)
            return {"val_loss": 1.0}
"""


def run_verb(project: Project, verb: str, *arguments: str) -> int:
    return main([verb, str(project.hyperparameters), str(project.model), *arguments])


def fill_study(project: Project, number: int) -> optuna.Study:
    """The project's study with trials as plain Optuna makes them, so that nothing has to train."""
    config = project.config
    study = begin_study(config)
    config.write_snapshot()
    for _ in range(number):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, 1.0))
    return study
