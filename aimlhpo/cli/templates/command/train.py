"""A training program; put your own in its place, in any language. By itself it runs as: python train.py --momentum=0.9

It takes the trial's values as options, and prints its metrics as lines of JSON. Everything else that it prints is in
the worker's log.
"""

import argparse
import json
import os
import random
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float, default=0.01)
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--nesterov", action=argparse.BooleanOptionalAction, default=False)
parser.add_argument("--epochs", type=int, default=15)
options = parser.parse_args()


def loss_and_slope(weight, points):
    """The mean squared error of `y = weight * x` on the points, and its derivative."""
    errors = [weight * x - y for x, y in points]
    slope = sum(2 * error * x for error, (x, _) in zip(errors, points, strict=True)) / len(points)
    return sum(error**2 for error in errors) / len(points), slope


numbers = random.Random(0)
data = [(x, 3 * x + numbers.gauss(0, 0.1)) for x in (numbers.uniform(-1, 1) for _ in range(400))]
state = {"epoch": 0, "weight": 0.0, "speed": 0.0}

# A trial that was interrupted runs again, and finds in this directory what it wrote before.
folder = os.environ.get("AIMLHPO_CHECKPOINT_DIR")
checkpoint = Path(folder) / "state.json" if folder else None
if checkpoint and checkpoint.exists():
    state = json.loads(checkpoint.read_text())

for epoch in range(state["epoch"], options.epochs):
    for start in range(0, 300, 30):
        ahead = options.momentum * state["speed"] if options.nesterov else 0.0
        _, slope = loss_and_slope(state["weight"] + ahead, data[start : start + 30])
        state["speed"] = options.momentum * state["speed"] - options.learning_rate * slope
        state["weight"] += state["speed"]
    state["epoch"] = epoch + 1
    if checkpoint:
        checkpoint.with_suffix(".new").write_text(json.dumps(state))
        checkpoint.with_suffix(".new").replace(checkpoint)
    val_loss, _ = loss_and_slope(state["weight"], data[300:])
    # A line with the metric and an epoch is a report: the pruner sees it. The last line's metric is the trial's result.
    print(json.dumps({"epoch": epoch, "val_loss": val_loss}), flush=True)
