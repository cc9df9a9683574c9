"""Train a classifier of handwritten digits (8x8 pixels, shipped with scikit-learn).

As a script it trains with each model configuration it is given and prints how good the result is:

    python examples/torch/digits.py model.yml best.yml
"""

import os
import sys
from pathlib import Path

import torch
import yaml
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def train(conf, device="cpu", folder=None, after_epoch=lambda epoch, results: None):
    """Train with `conf`; return the results of the best epoch.

    `folder` keeps a checkpoint of every epoch: a training that was interrupted goes on from there.
    `after_epoch(epoch, results)` may end the training by raising.
    """
    torch.manual_seed(conf["seed"])
    splits = load_splits(device)
    model = build_model(conf["model"]).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=conf["optimizer"]["learning_rate"],
        weight_decay=conf["optimizer"]["weight_decay"],
    )
    history = load_checkpoint(folder, model, optimizer, device)
    for epoch in range(len(history), conf["trainer"]["epochs"]):
        train_epoch(model, optimizer, *splits["train"], conf["data"]["batch_size"])
        history.append(evaluate(model, *splits["val"], "val"))
        save_checkpoint(folder, model, optimizer, history)
        after_epoch(epoch, history[-1])
    best = min(history, key=lambda results: results["val_loss"])
    return {**best, **evaluate(model, *splits["test"], "test"), "epochs": len(history)}


def build_model(conf):
    layers, width = [], 64
    for units in conf["dense_hidden_dims"]:
        layers += [nn.Linear(width, units), ACTIVATIONS[conf["activation"]](), nn.Dropout(conf["dropout"])]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 10))


def load_splits(device):
    """60 % to train, 20 % to choose by (val), 20 % that no choice ever sees (test)."""
    pixels, labels = load_digits(return_X_y=True)
    rest, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    train, val = train_test_split(rest, test_size=0.25, random_state=0, stratify=labels[rest])
    x = torch.tensor(pixels / 16, dtype=torch.float32, device=device)
    y = torch.tensor(labels, device=device)
    return {name: (x[rows], y[rows]) for name, rows in (("train", train), ("val", val), ("test", test))}


def train_epoch(model, optimizer, x, y, batch_size):
    model.train()
    for rows in torch.randperm(len(y)).to(x.device).split(batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model, x, y, split):
    model.eval()
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, y).item()
    accuracy = (logits.argmax(1) == y).float().mean().item()
    return {f"{split}_loss": loss, f"{split}_accuracy": accuracy}


def save_checkpoint(folder, model, optimizer, history):
    if folder is None:
        return
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
        "random": torch.get_rng_state(),
    }
    # Written aside and renamed, so that an interruption never leaves half a checkpoint.
    torch.save(state, Path(folder) / "checkpoint.new")
    os.replace(Path(folder) / "checkpoint.new", Path(folder) / "checkpoint.pt")


def load_checkpoint(folder, model, optimizer, device):
    """Put back the state of the last finished epoch; return the results of all epochs so far."""
    if folder is None or not (Path(folder) / "checkpoint.pt").exists():
        return []
    state = torch.load(Path(folder) / "checkpoint.pt", map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"].cpu())
    return state["history"]


def main():
    for path in sys.argv[1:]:
        results = train(yaml.safe_load(Path(path).read_text()))
        print(f"{path}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))


if __name__ == "__main__":
    main()
