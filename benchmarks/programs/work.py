"""What a trial does, the same under every peer, and the notes it takes. Needs the standard library alone.

The environment's BENCH_SPEC, a JSON object, says what to do; each trial adds a line to NOTES/<process>.jsonl.
"""

import contextlib
import json
import os
import random
import sys
import time

SPEC = json.loads(os.environ.get("BENCH_SPEC", "{}"))
SPACE = {"x0": (0.0, 1.0), "x1": (0.0, 1.0), "rate": (1e-5, 1e-1), "layers": (1, 8), "kind": ["a", "b", "c"]}
if SPEC.get("import"):
    __import__(SPEC["import"])


def loss(params):
    return (params["x0"] - 0.3) ** 2 + (params["x1"] - 0.7) ** 2 + 0.1 * "abc".index(params["kind"])


def suggest(trial):
    """The search space of `SPACE`, as Optuna's own interface says it."""
    return {
        "x0": trial.suggest_float("x0", 0.0, 1.0),
        "x1": trial.suggest_float("x1", 0.0, 1.0),
        "rate": trial.suggest_float("rate", 1e-5, 1e-1, log=True),
        "layers": trial.suggest_int("layers", 1, 8),
        "kind": trial.suggest_categorical("kind", ["a", "b", "c"]),
    }


def run(params, report):
    """One trial: `report(value, step)` is the peer's own call, its pruning decision included. Returns the value."""
    begin = time.time()
    value, costs, steps = loss(params), [], []
    note({"pid": os.getpid(), "begin": begin})
    time.sleep(SPEC.get("seconds", 0.0) * random.uniform(0.75, 1.25))
    for step in range(SPEC.get("steps", 0)):
        started = time.perf_counter()
        wait_or_compute()
        reported = time.perf_counter()
        if SPEC.get("report", True):
            report(value + 1 / (1 + step) + 0.01 * random.random(), step)
        costs.append(time.perf_counter() - reported)
        steps.append(time.perf_counter() - started)
    note({"pid": os.getpid(), "begin": begin, "end": time.time(), "costs": costs, "steps": steps, "value": value})
    return value


def wait_or_compute():
    if SPEC.get("compute"):
        sum(index * index for index in range(SPEC["compute"]))
    else:
        time.sleep(SPEC.get("pause", 0.0))


def train_digits(conf, report):
    """One training of examples/torch, by its own code; `report` may raise to end it. Returns the best loss."""
    sys.path.insert(0, SPEC["digits"])
    from digits import train  # of the example

    begin, losses = time.time(), []

    def after_epoch(epoch, results):
        losses.append(results["val_loss"])
        report(results["val_loss"], epoch)

    ended = {"pid": os.getpid(), "begin": begin}
    try:
        return train(conf, "cpu", None, after_epoch)["val_loss"]
    finally:
        if losses:
            note({**ended, "end": time.time(), "value": min(losses), "epochs": len(losses)})


def digits_conf(params):
    """The example's model configuration with the values put in."""
    return {
        "seed": 42,
        "data": {"batch_size": int(params["batch_size"])},
        "model": {
            "dense_hidden_dims": [int(params["dense_width"])] * int(params["num_dense"]),
            "activation": params["activation"],
            "dropout": float(params["dropout"]),
        },
        "optimizer": {"learning_rate": params["learning_rate"], "weight_decay": params["weight_decay"]},
        "trainer": {"epochs": SPEC.get("epochs", 20)},
    }


def suggest_digits(trial):
    """The search space of examples/torch."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        "activation": trial.suggest_categorical("activation", ["relu", "gelu", "tanh"]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.1),
        "num_dense": trial.suggest_int("num_dense", 1, 3),
        "dense_width": trial.suggest_int("dense_width", 16, 128, log=True),
    }


def note(line):
    with contextlib.suppress(OSError), open(os.path.join(SPEC["notes"], f"{os.getpid()}.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\n")
