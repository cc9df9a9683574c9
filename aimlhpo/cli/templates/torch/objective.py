"""One trial trains the model once, with the values in `conf` that this trial tries.

To tune your own code, replace `load_data` and `build_model`, or the whole of `train`. Modules beside this file can be
imported as usual, and what is printed is in the worker's log.
"""

import os

import torch
from torch import nn

from aimlhpo import BaseObjective
from aimlhpo.callbacks.torch import report_or_prune


class Objective(BaseObjective):
    def train(self, trial, conf):
        """`conf` is model.yml with this trial's values in it; returns a dict that holds the metric."""
        torch.manual_seed(conf["seed"])
        x, y, x_val, y_val = (tensor.to(self.device) for tensor in load_data())  # "cpu", or the worker's own GPU
        model = build_model(conf["model"]).to(self.device)
        optimizer = torch.optim.AdamW(model.parameters(), **conf["optimizer"])
        checkpoint = self.checkpoint_dir(trial) / "checkpoint.pt"  # an interrupted trial finds it there
        first_epoch = load_checkpoint(checkpoint, model, optimizer, self.device)
        for epoch in range(first_epoch, conf["trainer"]["epochs"]):
            model.train()
            for rows in torch.randperm(len(y)).to(self.device).split(conf["trainer"]["batch_size"]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            save_checkpoint(checkpoint, model, optimizer, epoch + 1)
            report_or_prune(trial, evaluate(model, x_val, y_val)["val_loss"], step=epoch)
        return evaluate(model, x_val, y_val)


def load_data():
    """Made-up data of two classes: points inside and outside of a sphere in eight dimensions."""
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    y = (x.square().sum(dim=1) > 7.3).long()
    return x[:750], y[:750], x[750:], y[750:]


def build_model(conf):
    layers, width = [], 8
    for _ in range(conf["layers"]):
        layers += [nn.Linear(width, conf["units"]), nn.ReLU(), nn.Dropout(conf["dropout"])]
        width = conf["units"]
    return nn.Sequential(*layers, nn.Linear(width, 2))


@torch.no_grad()
def evaluate(model, x, y):
    model.eval()
    logits = model(x)
    accuracy = (logits.argmax(dim=1) == y).float().mean()
    return {"val_loss": nn.functional.cross_entropy(logits, y).item(), "val_accuracy": accuracy.item()}


def save_checkpoint(path, model, optimizer, epoch):
    """Written under another name and then renamed, so that an interruption never leaves half a checkpoint."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def load_checkpoint(path, model, optimizer, device):
    """Returns the epoch to go on with: 0 for a trial that begins."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"]
