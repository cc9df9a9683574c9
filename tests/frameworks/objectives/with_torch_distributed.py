import os

import optuna
import torch
import torch.distributed as distributed
from optuna_integration import TorchDistributedTrial

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    """As Optuna's own example begins: rank 0 alone gives its trial."""

    def train(self, trial, conf):
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        rank = distributed.get_rank()
        trial = TorchDistributedTrial(trial if rank == 0 else None)
        rate = trial.suggest_float("rate", 0.0, 1.0)
        for step in range(3):
            loss = torch.tensor(conf["model"]["x"] + rate + rank)
            distributed.all_reduce(loss)
            trial.report(loss.item(), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return {"val_loss": loss, "seen": trial.params["rate"], "ranks": int(os.environ["WORLD_SIZE"])}
