"""A confirmation: the best configurations of a study, trained again with fresh seeds.

It is a study of its own in the same storage, named NAME:confirm, with its files in save_path/confirm, so that agents,
launchers and the ledger run it as they run any study: exactly, resumably, here or as SLURM jobs. Its trials are fixed
beforehand (`aimlhpo.search.queues`), and its plan, the study's attribute CONFIRMATION, says which:

    study            the name of the study that is confirmed
    seed             what the trainings' own seeds are made of
    first            what was asked for at first: the trials' numbers in that study, and the number of seeds
    seed_keys        the keys of the model configuration that hold a training's seed, by colon path
    configurations   trial, params as the storage holds them, and seeds: how often it is to be trained

Asking again only adds to the plan. It runs in the process of the command, before any agent starts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from aimlhpo.config.load import config_of, load_snapshot
from aimlhpo.config.optuna_section import RULES
from aimlhpo.config.paths import StudyPaths
from aimlhpo.search.queues import ConfirmationQueue
from aimlhpo.storage.attributes import CONFIRMATION, STUDY_ATTR, set_study_attribute, study_attributes
from aimlhpo.storage.study import create_or_load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FOLDER = "confirm"  # in the save_path of the study that is confirmed
SEED_NAMES = ("seed", "random_seed", "random_state")
_SUFFIX = ":confirm"
_LEFT_OUT = (
    *RULES, "timeout_scope", "at_stop", "sampler_sees", "enqueue", "enqueue_default", "warm_start_from", "pruning",
)  # fmt: skip
"""Keys of the `optuna` section that steer a search, and would end or change a confirmation."""


def find_confirmation(study: optuna.Study) -> optuna.Study | None:
    """The confirmation of a study, in the same storage; None where there is none."""
    try:
        return optuna.Study(study.study_name + _SUFFIX, study._storage)
    except KeyError:
        return None


def plan_of(study: optuna.Study) -> dict[str, Any] | None:
    """The plan of a confirmation; None for any other study."""
    plan: dict[str, Any] | None = study_attributes(study).get(CONFIRMATION)
    return plan


def confirmed_study(confirmation: optuna.Study, config: Config) -> tuple[optuna.Study, Config] | None:
    """The study that is confirmed, with its configuration; None where the given study confirms none.

    Raises ConfigError where the configuration is gone.
    """
    plan = plan_of(confirmation)
    if plan is None:
        return None
    study = optuna.Study(plan["study"], confirmation._storage)
    return study, load_snapshot(StudyPaths(config.paths.save_path.parent, plan["study"]))


def confirmation_config(config: Config, study: optuna.Study) -> Config:
    """The configuration of a study's confirmation, which may have been begun before.

    Nothing is pruned and no rule but the number of trials ends it; everything else is as in the study.
    """
    hyperparameters = copy.deepcopy(config.hyperparameters)
    optuna_section = {key: value for key, value in hyperparameters["optuna"].items() if key not in _LEFT_OUT}
    known = find_confirmation(study)
    plan = plan_of(known) if known is not None else None
    name, save_path = config.optuna.study_name + _SUFFIX, str(config.paths.save_path / FOLDER)
    hyperparameters["optuna"] = {
        **optuna_section,
        "study_name": name,
        "save_path": save_path,
        "reload": known is not None,
        "n_trials": count_trainings(plan) if plan else 1,
        "seed": study_attributes(study)[STUDY_ATTR]["seed"],
        "sampler": {"type": "RandomSampler"},
        "pruner": {"type": "NopPruner"},
    }
    hyperparameters["log"] = _log(hyperparameters.get("log"), name, save_path)
    return config_of(hyperparameters, config.model)


def _log(log: Any, name: str, save_path: str) -> Any:
    """The `log` section, with places in the tracking tools that are the confirmation's own."""
    if not isinstance(log, Mapping):
        return log
    changed = {**log, "save_path": save_path, "report": False}
    if isinstance(log.get("mlflow"), Mapping):
        changed["mlflow"] = {**log["mlflow"], "experiment": name}
    if isinstance(log.get("tensorboard"), Mapping):
        changed["tensorboard"] = {"directory": str(Path(log["tensorboard"]["directory"], FOLDER))}
    return changed


def seed_keys(config: Config) -> list[str]:
    """Where the model configuration holds a seed: colon paths of whole numbers under a key of `SEED_NAMES`.

    Many objectives seed themselves with it, and would train the same again with any other seed of the trial.
    """

    def below(node: Mapping[Any, Any], path: str) -> Iterator[str]:
        for key, value in node.items():
            here = f"{path}:{key}" if path else str(key)
            if isinstance(value, Mapping):
                yield from below(value, here)
            elif key in SEED_NAMES and type(value) is int and here not in config.space.by_key:
                yield here

    return list(below(config.model, ""))


def extended(
    plan: Mapping[str, Any] | None, study: optuna.Study, config: Config, chosen: Sequence[FrozenTrial], seeds: int
) -> dict[str, Any]:
    """The plan with these trials of the study, each trained with so many seeds at least."""
    known = {entry["trial"]: dict(entry) for entry in (plan["configurations"] if plan else ())}
    for trial in chosen:
        entry = known.setdefault(trial.number, {"trial": trial.number, "params": dict(trial.params), "seeds": seeds})
        entry["seeds"] = max(entry["seeds"], seeds)
    new = {
        "study": study.study_name,
        "seed": study_attributes(study)[STUDY_ATTR]["seed"],
        "seed_keys": seed_keys(config),
        "first": {"trials": [trial.number for trial in chosen], "seeds": seeds},
    }
    return {**new, **(plan or {}), "configurations": list(known.values())}


def count_trainings(plan: Mapping[str, Any]) -> int:
    """How many trainings a plan asks for."""
    return sum(int(entry["seeds"]) for entry in plan["configurations"])


def distinct(trials: Iterable[FrozenTrial], most: int) -> list[FrozenTrial]:
    """The first `most` trials whose parameters are not those of one before."""
    found: list[FrozenTrial] = []
    for trial in trials:
        if len(found) == most:
            break
        if all(trial.params != other.params for other in found):
            found.append(trial)
    return found


def begin_confirmation(study: optuna.Study, config: Config, chosen: Sequence[FrozenTrial], seeds: int) -> Config:
    """Make the confirmation, or add to the one that is there, and queue what has not been run or has failed.

    Args:
        study: the study whose trials are confirmed.
        config: the confirmation's configuration, as `confirmation_config` gives it, with what was changed since.
        chosen: the trials, best first.
        seeds: how often each is to be trained.

    Returns:
        The confirmation's configuration, with the number of trainings as `n_trials`; a copy lies beside it.

    Raises StudyError.
    """

    def prepare(confirmation: optuna.Study) -> None:
        """Runs under the ledger's lock."""
        before = plan_of(confirmation)
        plan = extended(before, study, config, chosen, seeds)
        if plan != before:
            set_study_attribute(confirmation, CONFIRMATION, plan)
        ConfirmationQueue(confirmation, plan).begin()

    confirmation = create_or_load_study(config, prepare=prepare, allow_changes=True)
    config = config.with_n_trials(count_trainings(study_attributes(confirmation)[CONFIRMATION]))
    config.write_snapshot()
    return config
