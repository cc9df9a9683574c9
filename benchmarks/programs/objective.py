"""The objective for aimlhpo."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import work

from aimlhpo import BaseObjective
from aimlhpo.objective.base import Pruned


class Objective(BaseObjective):
    def train(self, trial, conf):
        def report(value, step):
            trial.report(value, step)
            if trial.should_prune() and "digits" in work.SPEC:
                raise Pruned

        if "digits" in work.SPEC:
            return {"val_loss": work.train_digits(work.digits_conf(conf["bench"]), report)}
        return {"val_loss": work.run(conf["bench"], report)}
