"""echo-opt: one `echo-run` for each worker, as its job scripts start them, on a study that is there before."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers.aimlhpo import DIGITS, PRUNERS, SAMPLERS, SPACE, model
from benchmarks.peers.peer import PROGRAMS, Peer, Spec

_CREATE = """
import sys
from echo.src.config import configure_storage
import optuna
storage = configure_storage({"save_path": "", "optuna": {"storage": sys.argv[1], "storage_type": sys.argv[2]}})
optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
"""
_KINDS = {"sqlite": "sqlite", "journal": "nfs"}


def _commands(python: str, spec: Spec) -> Sequence[Sequence[str]]:
    folder = Path(spec["folder"])
    kind, _, file = spec["url"].partition("://")
    space = DIGITS if "digits" in spec else SPACE
    settings: dict[str, Any] = {
        "study_name": "s", "storage": f"/{file.lstrip('/')}", "storage_type": _KINDS[kind], "gpu": False,
        "objective": str(PROGRAMS / "echo_objective.py"), "metric": "val_loss", "direction": "minimize",
        "n_trials": spec["counted"] + spec["trials"],
        "parameters": {
            f"bench:{name}": {"type": kind_, "settings": {"name": name, **values}}
            for name, (kind_, values) in space.items()
        },
    }  # fmt: skip
    if "sampler" in spec:
        settings["sampler"] = {"type": SAMPLERS[spec["sampler"]]}
    if "pruner" in spec:
        settings["pruner"] = {"type": PRUNERS[spec["pruner"]]}
    (folder / "run").mkdir()
    hyper = {"save_path": str(folder / "run"), "log": False, "optuna": settings}
    (folder / "h.yml").write_text(yaml.safe_dump(hyper))
    (folder / "m.yml").write_text(yaml.safe_dump(model(spec)))
    # `echo-opt` makes the study before it submits; workers that all make it at once kill some of themselves.
    create = [python, "-c", _CREATE, settings["storage"], settings["storage_type"]]
    subprocess.run(create, check=True, capture_output=True)
    command = [python, "-m", "echo.run", str(folder / "h.yml"), str(folder / "m.yml")]
    return [[*command, "-n", str(number)] for number in range(spec["workers"])]


PEER = Peer("echo", "echo-opt", "echo-opt", _commands, requirement="echo-opt==1.3.1")
