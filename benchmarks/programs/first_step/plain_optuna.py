"""The same study with plain Optuna: python plain_optuna.py FOLDER."""

import sys

import optuna
from training import step


def objective(trial):
    return step(trial.suggest_float("x", 0.0, 1.0))


study = optuna.create_study(study_name="s", storage=f"sqlite:///{sys.argv[1]}/s.db")
study.optimize(objective, n_trials=1)
