"""Studies whose trials are all fixed beforehand: which of them wait to be run, and a sampler that samples nothing.

There are two of them. A study whose parameters declare a grid (`single`, `multiple`, `linear`, `logspace`, `random`)
runs each combination once. A confirmation trains the best configurations of another study again, each with several
fresh seeds.

A `TrialQueue` adds such trials to the study as WAITING ones, each with all its values, a hundred at a time: when the
study starts, and in an agent's storage thread whenever no trial waits any more. The caller holds the ledger's lock.

What has failed is run again when the study is started again. It is run again at once, at the end of the study, where
the objective is not to blame: its worker was killed.

A confirmation is a study of its own in the same storage, named NAME:confirm, with its files in save_path/confirm, so
that agents, launchers and the ledger run it as they run any study: exactly, resumably, here or as SLURM jobs. Its plan,
the study's attribute CONFIRMATION, says which trials it has:

    study            the name of the study that is confirmed
    seed             what the trainings' own seeds are made of
    first            what was asked for at first: the trials' numbers in that study, and the number of seeds
    seed_keys        the keys of the model configuration that hold a training's seed, by colon path
    configurations   trial, params as the storage holds them, and seeds: how often it is to be trained

Asking again only adds to the plan: `begin_confirmation`, in the process of the command, before any agent starts.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.config.load import config_of, load_snapshot
from aimlhpo.config.optuna_section import RULES
from aimlhpo.config.paths import StudyPaths
from aimlhpo.space.search_space import Grid, SearchSpace, grid_of
from aimlhpo.storage.attributes import CONFIRMATION, STUDY_ATTR, set_study_attribute, study_attributes
from aimlhpo.storage.base import backend_of, trial_seed
from aimlhpo.storage.study import DRAWN, create_or_load_study
from aimlhpo.storage.trials import CONFIRMED, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FIXED = "fixed_params"  # system attribute in which Optuna keeps the values of an enqueued trial
AT_ONCE = 100  # trials that wait at a time: a storage is slow where thousands do
MOST_KILLED = 3  # workers that one of the fixed trials may cost
_KILLED = ("killed by", "out of memory: killed")  # how the recorded cause of such a failure begins


class FixedSampler(BaseSampler):
    """Refuses to sample: the trials of such a study have all their values when they are added to it.

    `refusal` says why, and what to do.
    """

    def __init__(self, refusal: str = "") -> None:
        self._refusal = refusal

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name!r} {self._refusal}")


class TrialQueue(ABC):
    """Adds its trials to the study. The caller holds the ledger's lock, so that none is added twice.

    Attributes:
        refusal: what a parameter without a fixed value is told, after its name.
    """

    refusal: str

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @cached_property
    @abstractmethod
    def entries(self) -> Mapping[str, dict[str, Any]]:
        """The system attributes of every trial that is to be run, by its key, in their order."""

    @staticmethod
    @abstractmethod
    def key_of(trial: FrozenTrial) -> str | None:
        """Which entry a trial of the study was made for; None for another trial."""

    def fill(self) -> bool:
        """Queue the next trials, and when all have run, those whose worker was killed; False if there are none.

        To be called when no trial waits.
        """
        tried = self._tried()
        missing = [key for key in self.entries if key not in tried]
        chosen = missing[:AT_ONCE]
        if not missing:
            for key in self.entries:
                killed = str(read_record(tried[key][-1], ()).cause).startswith(_KILLED)
                if killed and _all_failed(tried[key]) and len(tried[key]) < MOST_KILLED:
                    chosen.append(key)
        self._enqueue(chosen)
        return bool(chosen)

    def begin(self) -> None:
        """For a study that is started, or started again: queue all that has only failed, and the next trials."""
        tried = self._tried()
        self._enqueue(key for key in self.entries if key in tried and _all_failed(tried[key]))
        self._enqueue([key for key in self.entries if key not in tried][:AT_ONCE])

    def given_up(self) -> int:
        """How many entries have only failed: they are not run until the study is started again."""
        return sum(map(_all_failed, self._tried().values()))

    def _enqueue(self, keys: Iterable[str]) -> None:
        new = [create_trial(state=TrialState.WAITING, system_attrs=self.entries[key]) for key in keys]
        backend_of(self._study._storage).commit(self._study._study_id, [], new)

    def _tried(self) -> dict[str, list[FrozenTrial]]:
        """The trials of each entry: more than one where one has failed."""
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            key = self.key_of(trial)
            if key is not None:
                found.setdefault(key, []).append(trial)
        return found


class GridQueue(TrialQueue):
    """Every combination of a grid once."""

    refusal = (
        "is not a parameter of the grid, and a grid samples nothing: declare it in the YAML, "
        "under optuna: parameters, with a grid's type (single, multiple, linear, logspace, random)"
    )

    def __init__(self, study: optuna.Study, grid: Grid, space: SearchSpace) -> None:
        super().__init__(study)
        self._grid, self._space = grid, space

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        drawn = study_attributes(self._study)[STUDY_ATTR].get(DRAWN, {})
        stored = (self._space.encode(point) for point in self._grid.points(drawn))
        return {_as_key(point): {FIXED: point} for point in stored}

    @staticmethod
    def key_of(trial: FrozenTrial) -> str | None:
        return _as_key(trial.system_attrs[FIXED]) if FIXED in trial.system_attrs else None


class ConfirmationQueue(TrialQueue):
    """Every configuration of a confirmation once with each of its seeds; `plan` is the study's CONFIRMATION."""

    refusal = (
        "has no value in the trial that is confirmed, and a confirmation samples nothing: "
        "train() must ask for the same parameters in each training of a configuration"
    )

    def __init__(self, study: optuna.Study, plan: Mapping[str, Any]) -> None:
        super().__init__(study)
        self._plan = plan

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """First all configurations with their first seed, then all with their second, and so on."""
        configurations = self._plan["configurations"]
        found = {}
        for repeat in range(max(entry["seeds"] for entry in configurations)):
            for entry in configurations:
                if repeat < entry["seeds"]:
                    number = entry["trial"]
                    seed = trial_seed(self._plan["seed"], number, repeat, 2)
                    mark = {"trial": number, "repeat": repeat, "seed": seed, "keys": self._plan["seed_keys"]}
                    found[f"{number}/{repeat}"] = {FIXED: entry["params"], CONFIRMED: mark}
        return found

    @staticmethod
    def key_of(trial: FrozenTrial) -> str | None:
        mark = trial.system_attrs.get(CONFIRMED)
        return f"{mark['trial']}/{mark['repeat']}" if mark else None


def queue_of(study: optuna.Study, config: Config) -> TrialQueue | None:
    """The queue of a study whose trials are fixed beforehand; None for others."""
    plan = study_attributes(study).get(CONFIRMATION)
    if plan is not None:
        return ConfirmationQueue(study, plan)
    grid = grid_of(config.space)
    return None if grid is None else GridQueue(study, grid, config.space)


def _all_failed(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in trials)


def _as_key(stored: Mapping[str, Any]) -> str:
    return json.dumps(stored, sort_keys=True)


# --- confirmations ---


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
