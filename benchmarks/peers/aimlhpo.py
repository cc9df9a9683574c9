"""aimlhpo itself: its command, with the study's YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.peers.peer import PROGRAMS, Peer, Spec

PRUNERS = {"median": "MedianPruner", "asha": "SuccessiveHalvingPruner", "none": "NopPruner"}
SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler"}
SPACE = {
    "x0": ("float", {"low": 0.0, "high": 1.0}),
    "x1": ("float", {"low": 0.0, "high": 1.0}),
    "rate": ("loguniform", {"low": 1e-5, "high": 1e-1}),
    "layers": ("int", {"low": 1, "high": 8}),
    "kind": ("categorical", {"choices": ["a", "b", "c"]}),
}
DIGITS = {
    "learning_rate": ("loguniform", {"low": 1e-4, "high": 3e-2}),
    "weight_decay": ("loguniform", {"low": 1e-6, "high": 1e-2}),
    "batch_size": ("categorical", {"choices": [16, 32, 64, 128]}),
    "activation": ("categorical", {"choices": ["relu", "gelu", "tanh"]}),
    "dropout": ("float", {"low": 0.0, "high": 0.5, "step": 0.1}),
    "num_dense": ("int", {"low": 1, "high": 3}),
    "dense_width": ("int", {"low": 16, "high": 128, "log": True}),
}


def parameters(spec: Spec) -> dict[str, object]:
    """The search space as the YAML holds it."""
    space = DIGITS if "digits" in spec else SPACE
    return {
        f"bench:{name}": {"type": kind, "settings": {"name": name, **settings}}
        for name, (kind, settings) in space.items()
    }


def model(spec: Spec) -> dict[str, object]:
    """The model configuration: a place for every value."""
    space = DIGITS if "digits" in spec else SPACE
    return {"bench": {name: settings.get("low", settings.get("choices", [0])) for name, (_, settings) in space.items()}}


def _commands(python: str, spec: Spec) -> Sequence[Sequence[str]]:
    folder = Path(spec["folder"])
    settings = {
        "name": "s", "storage": spec["url"], "objective": str(PROGRAMS / "objective.py"), "metric": "val_loss",
        "direction": "minimize", "n_trials": spec["counted"] + spec["trials"], "reload": int(spec["counted"] > 0),
        "parameters": parameters(spec), "seed": spec["seed"],
    }  # fmt: skip
    if "sampler" in spec:
        settings["sampler"] = {"type": SAMPLERS[spec["sampler"]]}
        settings["claim_ahead"] = True  # `auto` begins with it later than most cells end
    if "pruner" in spec:
        settings["pruner"] = {"type": PRUNERS[spec["pruner"]]}
    (folder / "h.yml").write_text(yaml.safe_dump({"log": {"save_path": str(folder / "run")}, "optuna": settings}))
    (folder / "m.yml").write_text(yaml.safe_dump(model(spec)))
    command = [python, "-m", "aimlhpo", "optimize", str(folder / "h.yml"), str(folder / "m.yml")]
    return [[*command, "--local", str(spec["workers"]), "--allow-changes"]]


PEER = Peer("aimlhpo", "aimlhpo", "aimlhpo", _commands)
