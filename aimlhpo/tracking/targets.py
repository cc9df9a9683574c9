"""The tracking tools that there are, and those that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import Problem
from aimlhpo.search.building import strategies
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.tracking.mlflow import MlflowTarget
from aimlhpo.tracking.run import RunReader, StudyEntry, Target
from aimlhpo.tracking.tensorboard import TensorboardTarget

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

TRACKERS: dict[str, type[Target]] = {
    "mlflow": MlflowTarget,
    "tensorboard": TensorboardTarget,
}
"""Each tool's class, by its section under `log`."""


def asked_trackers(config: Config) -> dict[str, Any]:
    """The sections under `log` that ask for a tool, by name."""
    return {name: section for name in TRACKERS if (section := getattr(config.log, name, None)) is not None}


def tracking_problems(config: Config) -> Iterator[Problem]:
    """Tools that are asked for and not installed, and wrong sections. Whether a server answers is no condition."""
    asked = asked_trackers(config)
    for name in asked:
        package = TRACKERS[name].package
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a directory that only has the package's name has no origin
            yield Problem(f"log: {name}", f"{package} is not installed", f"pip install 'aimlhpo[{package}]'")
    for name, section in asked.items():
        yield from TRACKERS[name].problems(section)


def make_targets(config: Config, study: optuna.Study) -> list[Target]:
    """A target for each tool that is asked for; nothing is opened or imported yet."""
    section, chosen = config.optuna, strategies(config, study)
    signature = study_attributes(study)[STUDY_ATTR]
    parameters = {
        "sampler": chosen.sampler.type,
        "pruner": chosen.pruner.type,
        "n_trials": section.n_trials,
        "seed": signature["seed"],
        "metric": section.metric,
        "direction": section.direction,
    }
    program = section.objective or section.command or ""
    tags = {"study": section.study_name, "save_path": section.save_path, "mlflow.source.name": program}
    entry = StudyEntry(signature["id"], section.study_name, parameters, tags)
    reported = RunReader(config).reported
    return [TRACKERS[name].make(asked, entry, reported) for name, asked in asked_trackers(config).items()]
