"""One trial on several GPUs: every rank trains on its share of the batches, rank 0 reports."""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aimlhpo import BaseObjective
from aimlhpo.callbacks.torch import report_or_prune


class Objective(BaseObjective):
    def train(self, trial, conf):
        if not dist.is_initialized():  # once for all trials of this worker; the environment says rank and address
            dist.init_process_group("nccl" if self.device.startswith("cuda") else "gloo")
        return train(trial, conf, self.device)


def train(trial, conf, device):
    torch.manual_seed(trial.seed)
    inputs, targets, held_out, held_targets = data(device)
    network = DistributedDataParallel(classifier(conf["model"]["width"]).to(device))
    optimizer = torch.optim.Adam(network.parameters(), lr=conf["optimizer"]["learning_rate"])
    for epoch in range(conf["trainer"]["epochs"]):
        for rows in batches(len(inputs), conf["trainer"]["batch_size"], epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            val_loss = float(nn.functional.cross_entropy(network.module(held_out), held_targets))
        report_or_prune(trial, val_loss, step=epoch)  # all ranks take the same decision
    return {"val_loss": val_loss, "ranks": dist.get_world_size()}


def data(device):
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32, device=device)
    targets = torch.tensor(digits.target, device=device)
    return inputs[:1400], targets[:1400], inputs[1400:], targets[1400:]


def classifier(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def batches(rows, size, epoch):
    """This rank's share of the shuffled rows; every rank has as many batches as the others."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(epoch))
    share = rows // dist.get_world_size()
    mine = order[dist.get_rank() * share : (dist.get_rank() + 1) * share]
    return mine.split(size)
