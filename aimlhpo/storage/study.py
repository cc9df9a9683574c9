"""What a study searches and optimizes, in a form that a later run is held against.
Storage URL -> Optuna storage, and the one study in it: made, loaded, and held against the configuration.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection

from aimlhpo.errors import Problem, StudyError
from aimlhpo.space.grid import grid_of
from aimlhpo.storage.locks import locked
from aimlhpo.storage.open import disconnect_storage, file_of, open_storage, without_experimental_warnings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from aimlhpo.config.schema import Config

_RANGE_KEYS = {"low", "high", "step"}


def fingerprint_of(config: Config) -> dict[str, Any]:
    """Metrics, directions, and each parameter's distribution as Optuna's JSON."""

    return {
        "metric": list(config.optuna.metric),
        "direction": list(config.optuna.direction),
        "constraints": sorted(config.optuna.constraints),
        "space": config.space.fingerprint(),
    }


def fingerprint_differences(study: optuna.Study, config: Config, *, allow_changes: bool = False) -> list[Problem]:
    """Every way in which the configuration asks for another study than the stored one.

    With `allow_changes`, ranges may change and parameters come and go; what Optuna itself cannot mix stays refused.
    """
    stored, wanted = _stored(study), fingerprint_of(config)
    problems = [
        Problem(
            f"optuna: {key}",
            f"is {_show(wanted[key])}, but the study was made with {_show(stored[key])}",
            _WAYS_OUT,
        )
        for key in ("direction", "metric", "constraints")
        if stored.get(key) is not None and stored[key] != wanted[key]
    ]
    if stored["space"] is None:
        return problems + list(_unlike_the_trials(study, wanted["space"]))
    return problems + _space_differences(stored["space"], wanted["space"], allow_changes)


_WAYS_OUT = "put the old value back, or give the new study another name"


def _stored(study: optuna.Study) -> dict[str, Any]:
    """The signature the study carries; for one that plain Optuna made, what its trials show."""
    signed = study.user_attrs.get("aimlhpo", {}).get("fingerprint")
    if signed:
        return {"constraints": [], **signed}
    return {
        "metric": study.metric_names,
        "direction": [direction.name.lower() for direction in study.directions],
        "space": None,
    }


def _unlike_the_trials(study: optuna.Study, wanted: Mapping[str, str]) -> Iterator[Problem]:
    """Parameters that cannot stand beside those of the same name in trials that plain Optuna has made.

    Numeric ranges may differ, as they may in Optuna, and parameters may come and go.
    """
    from optuna.distributions import distribution_to_json

    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    for name, after in wanted.items():
        before = distribution_to_json(found[name]) if name in found else None
        if before is not None and not _can_mix(before, after):
            yield _changed(name, before, after)
        elif before is not None and "values" in json.loads(after)["attributes"]:
            what = f"is stored as a place in the list of its values, and trials of the study have it as {before}"
            yield Problem(
                f"optuna: parameters: {name}", what, "a range (int, float) or categorical, as in those trials"
            )


def _space_differences(stored: dict[str, str], wanted: dict[str, str], allow_changes: bool) -> list[Problem]:
    problems = []
    for name in sorted(stored.keys() | wanted.keys()):
        before, after = stored.get(name), wanted.get(name)
        if before != after and not (allow_changes and _can_mix(before, after)):
            problems.append(_changed(name, before, after))
    return problems


def _changed(name: str, before: str | None, after: str | None) -> Problem:
    ways = _WAYS_OUT + ("; or --allow-changes" if _can_mix(before, after) else "")
    if before is None or after is None:
        found = (
            f"is new, the study was made without it: {after}"
            if before is None
            else f"is gone, the study has it: {before}"
        )
    else:
        found = f"is {after}, but the study was made with {before}"
    return Problem(f"optuna: parameters: {name}", found, ways)


def _can_mix(before: str | None, after: str | None) -> bool:
    """Whether Optuna takes both distributions under one name: only numeric ranges may move."""
    if before is None or after is None:
        return True
    old, new = json.loads(before), json.loads(after)
    if old["name"] != new["name"] or old["name"] == "CategoricalDistribution":
        return False
    fixed = old["attributes"].keys() - _RANGE_KEYS
    return all(old["attributes"][key] == new["attributes"].get(key) for key in fixed)


def _show(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


STUDY_ATTR = "aimlhpo"
DRAWN = "grid"  # in that attribute: the values of a grid's random parameters


def study_exists(config: Config) -> bool:
    """Whether the study is in its storage; never makes a storage that is not there."""
    study = find_study(config)
    if study is not None:
        disconnect(study)
    return study is not None


def find_study(config: Config) -> optuna.Study | None:
    """The study, where there is one. Opens the storage once, and never makes one that is not there."""
    try:
        return load_study(config)
    except StudyError:
        return None


def disconnect(study: optuna.Study) -> None:
    """Give up the connections of a study that is not needed any more: servers have few, and agents may be many."""
    disconnect_storage(study._storage)


def load_study(config: Config, *, sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> optuna.Study:
    """Load the study. Raises StudyError where there is none, StorageError where the storage cannot be reached."""
    path = file_of(config.optuna.storage)
    if path is not None and not path.exists():  # opening would make it
        raise StudyError(no_such_study(config))
    storage = open_storage(config.optuna.storage)
    try:
        return optuna.load_study(study_name=config.optuna.study_name, storage=storage, sampler=sampler, pruner=pruner)
    except KeyError:
        disconnect_storage(storage)
        raise StudyError(no_such_study(config)) from None
    except Exception:
        disconnect_storage(storage)
        raise


def create_or_load_study(
    config: Config, *, prepare: Callable[[optuna.Study], None], allow_changes: bool = False
) -> optuna.Study:
    """The study that the configuration names, as `reload` says; made under a lock, so that many may ask at once.

    `prepare` is called under that lock with the study, new or not, before anybody else can use it.

    Raises StudyError where `reload` and what is stored do not fit, naming both; nothing is touched then.
    """
    config.paths.create()
    with locked(config.paths.lock):
        study = find_study(config)
        problems = _problems(study, config, allow_changes)
        if problems:
            if study is not None:
                disconnect(study)
            raise StudyError("\n".join(str(problem) for problem in problems))
        study = study or _create(config)
        _sign(study, config)
        prepare(study)
    return study


def reload_problems(config: Config, *, allow_changes: bool = False) -> list[Problem]:
    """Why the configuration cannot be run on what the storage holds. Changes nothing."""
    study = find_study(config)
    try:
        return _problems(study, config, allow_changes)
    finally:
        if study is not None:
            disconnect(study)


def _problems(study: optuna.Study | None, config: Config, allow_changes: bool) -> list[Problem]:
    if study is None:
        return [Problem("optuna: reload", no_such_study(config))] if config.optuna.reload else []
    trials = study._storage.get_n_trials(study._study_id)
    if not config.optuna.reload and trials:
        return [
            Problem(
                "optuna: reload",
                f"is 0, and study {study.study_name!r} already has {trials} trials",
                "reload: 1 to go on with it, or another name for a new study",
            )
        ]
    return fingerprint_differences(study, config, allow_changes=allow_changes)


def _create(config: Config) -> optuna.Study:
    study = optuna.create_study(
        study_name=config.optuna.study_name,
        storage=open_storage(config.optuna.storage),
        directions=[StudyDirection[direction.upper()] for direction in config.optuna.direction],
    )
    with without_experimental_warnings():
        study.set_metric_names(config.optuna.metric)
    return study


def _sign(study: optuna.Study, config: Config) -> None:
    """Note in the study its id, what it searches, when it was last started, and its seed (drawn where none is set)."""

    known = study.user_attrs.get(STUDY_ATTR, {})
    grid = grid_of(config.space)
    seed = config.optuna.seed if config.optuna.seed is not None else known.get("seed", secrets.randbelow(2**31))
    now = time.time()
    lasting = {"id": known.get("id") or secrets.token_hex(8), "begun": known.get("begun", now)}
    signed = {"fingerprint": fingerprint_of(config), "seed": seed, "started": now, **lasting}
    drawn = {DRAWN: known.get(DRAWN) or grid.draw(seed)} if grid is not None else {}
    study.set_user_attr(STUDY_ATTR, {**known, **signed, **drawn})


def no_such_study(config: Config) -> str:
    return (
        f"there is no study {config.optuna.study_name!r} in {config.optuna.storage}; "
        "to start it, set reload: 0 (or check name, storage and save_path)"
    )
