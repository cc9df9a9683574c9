"""echo-opt: one `echo-run` for each worker, as its generated job scripts start them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.peers.aimlhpo import DIGITS, PRUNERS, SAMPLERS, SPACE, model
from benchmarks.peers.peer import PROGRAMS, Peer, Spec

_KINDS = {"sqlite": "sqlite", "journal": "nfs"}


def _commands(python: str, spec: Spec) -> Sequence[Sequence[str]]:
    folder = Path(spec["folder"])
    kind, _, file = spec["url"].partition("://")
    space = DIGITS if "digits" in spec else SPACE
    settings = {
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
    command = [python, "-m", "echo.run", str(folder / "h.yml"), str(folder / "m.yml")]
    return [[*command, "-n", str(number)] for number in range(spec["workers"])]


PEER = Peer("echo", "echo-opt", "echo-opt", _commands, requirement="echo-opt==1.3.1")
