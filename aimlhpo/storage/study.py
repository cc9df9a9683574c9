"""The study in the storage: made once, loaded by everybody else, and compared with the configuration.

A study of ours carries a signature in its attribute `STUDY_ATTR`: an id, its seed, when it was begun and last
started, from which save_path, and a fingerprint of what it searches and optimizes. A configuration that asks for
something else is refused.

Interface: `create_or_load_study` (the command that starts a study), `load_study` and `find_study` (everybody else),
`reload_problems` (the check).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection

from aimlhpo.config.paths import StudyPaths
from aimlhpo.config.resolve import is_same_directory
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import Problem, StudyError
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.attributes import (
    CONFIRMATION,
    STUDY_ATTR,
    move_study_attributes,
    set_study_attribute,
    study_attributes,
)
from aimlhpo.storage.locks import locked
from aimlhpo.storage.open import disconnect_storage, file_of, open_storage, without_experimental_warnings

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

DRAWN = "grid"  # in that attribute: the values of a grid's random parameters
_PUT_BACK = "put the old value back, or give the new study another name"


def find_study(config: Config) -> optuna.Study | None:
    """The study, if there is one. Opens the storage once, and never makes one that is not there."""
    path = file_of(config.optuna.storage)
    if path is not None and not path.exists():  # opening would make it
        return None
    storage = open_storage(config.optuna.storage)
    try:
        return optuna.load_study(study_name=config.optuna.study_name, storage=storage)
    except Exception as error:
        disconnect_storage(storage)
        if isinstance(error, KeyError):
            return None
        raise


def load_study(config: Config) -> optuna.Study:
    """Load the study. Raises StorageError where the storage cannot be reached.

    Raises StudyError where there is none, or where another directory than save_path has its locks.
    """
    study = find_study(config)
    if study is None:
        raise StudyError(no_such_study(config))
    problem = _kept_elsewhere(study, config)
    if problem is not None:
        disconnect_storage(study._storage)
        raise StudyError(str(problem))
    return study


def _kept_elsewhere(study: optuna.Study, config: Config) -> Problem | None:
    """A problem where the study is run from another directory, whose locks and leases agents from here would not see.

    A storage that lies in save_path was copied with it, and is a study of its own.
    """
    noted = study_attributes(study)
    other = noted.get(STUDY_ATTR, {}).get("save_path")
    here, file = config.paths.save_path, file_of(config.optuna.storage)
    copied = here.parent if CONFIRMATION in noted else here  # a confirmation lies in its study's save_path
    if other is None or is_same_directory(other, here) or (file is not None and file.is_relative_to(copied)):
        return None
    if not StudyPaths(Path(other), study.study_name).lock.exists():  # it was moved
        return None
    found = f"is {here}, and study {study.study_name!r} in the same storage is run from {other}"
    legal = f"save_path: {other}; or, where nobody works there any more, remove {other}/.aimlhpo"
    return Problem("optuna: save_path", found, legal)


def no_such_study(config: Config) -> str:
    """What to say where the study is not there."""
    return (
        f"there is no study {config.optuna.study_name!r} in {config.optuna.storage}; "
        "to start it, set reload: 0 (or check name, storage and save_path)"
    )


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
                disconnect_storage(study._storage)
            raise StudyError("\n".join(str(problem) for problem in problems))
        if study is None:
            study = optuna.create_study(
                study_name=config.optuna.study_name,
                storage=open_storage(config.optuna.storage),
                directions=[StudyDirection[direction.upper()] for direction in config.optuna.direction],
            )
            with without_experimental_warnings():
                study.set_metric_names(config.optuna.metric)
        _sign(study, config)
        prepare(study)
    return study


def _sign(study: optuna.Study, config: Config) -> None:
    """Note in the study its id, what it searches, when and from where it was last started, and its seed.

    The seed is drawn where none is set.
    """
    known = study_attributes(study).get(STUDY_ATTR, {})
    move_study_attributes(study)
    grid = grid_of(config.space)
    seed = config.optuna.seed if config.optuna.seed is not None else known.get("seed", secrets.randbelow(2**31))
    now = time.time()
    where = {"save_path": config.optuna.save_path}
    lasting = {"id": known.get("id") or secrets.token_hex(8), "begun": known.get("begun", now)}
    signed = {"fingerprint": fingerprint_of(config), "seed": seed, "started": now, **lasting, **where}
    drawn = {DRAWN: known.get(DRAWN) or grid.draw(seed)} if grid is not None else {}
    set_study_attribute(study, STUDY_ATTR, {**known, **signed, **drawn})


def reload_problems(config: Config, *, allow_changes: bool = False) -> list[Problem]:
    """Why the configuration cannot be run on what the storage holds. Changes nothing."""
    study = find_study(config)
    try:
        return _problems(study, config, allow_changes)
    finally:
        if study is not None:
            disconnect_storage(study._storage)


def _problems(study: optuna.Study | None, config: Config, allow_changes: bool) -> list[Problem]:
    """Why the configuration cannot be run: what `reload` says, and each way in which it asks for another study.

    With `allow_changes`, ranges may change and parameters come and go; what Optuna itself cannot mix stays refused.
    """
    if study is None:
        return [Problem("optuna: reload", no_such_study(config))] if config.optuna.reload else []
    elsewhere = _kept_elsewhere(study, config)
    if elsewhere is not None:
        return [elsewhere]
    trials = study._storage.get_n_trials(study._study_id)
    if not config.optuna.reload and trials:
        found = f"is 0, and study {study.study_name!r} already has {trials} trials"
        legal = "reload: 1 to go on with it, or another name for a new study"
        return [Problem("optuna: reload", found, legal)]
    wanted = fingerprint_of(config)
    signed = study_attributes(study).get(STUDY_ATTR, {}).get("fingerprint")
    if signed is not None:
        stored = {"constraints": [], **signed}
    else:  # plain Optuna made the study
        directions = [direction.name.lower() for direction in study.directions]
        stored = {"metric": study.metric_names, "direction": directions}
    problems: list[Problem] = []
    for key in ("direction", "metric", "constraints"):
        if stored.get(key) is not None and stored[key] != wanted[key]:
            now, before = (", ".join(words) or "none" for words in (wanted[key], stored[key]))
            problems.append(Problem(f"optuna: {key}", f"is {now}, but the study was made with {before}", _PUT_BACK))
    changed = list(_changes(study, signed, wanted["space"], allow_changes))
    if changed:
        new = lines_of_new_study(config)
        legal = f"{changed[-1].legal}; or go on in a new study that learns from this one's trials:{new}"
        changed[-1] = replace(changed[-1], legal=legal)
    return [*problems, *changed]


def lines_of_new_study(config: Config) -> str:
    """The lines of a study that goes on with another search space."""
    name, save_path = config.optuna.study_name, config.optuna.save_path
    known = config.paths.hyperparameters.exists()
    other = save_path if known else {"study_name": name, "storage": config.optuna.storage}
    lines = {"name": f"{name}-2", "reload": 0, "save_path": f"{save_path}-2", "warm_start_from": other}
    return "".join(f"\n        {line}" for line in dump_yaml(lines).splitlines())


# --- what a study searches and optimizes ---


def fingerprint_of(config: Config) -> dict[str, Any]:
    """Metrics, directions, and each parameter's distribution as Optuna's JSON."""
    return {
        "metric": list(config.optuna.metric),
        "direction": list(config.optuna.direction),
        "constraints": sorted(config.optuna.constraints),
        "space": config.space.fingerprint(),
    }


def _changes(
    study: optuna.Study, signed: Mapping[str, Any] | None, wanted: Mapping[str, str], allow_changes: bool
) -> Iterator[Problem]:
    """The parameters that are not those of the study."""
    if signed is None:
        yield from _unlike_the_trials(study, wanted)
        return
    stored = signed["space"]
    for name in sorted(stored.keys() | wanted.keys()):
        before, now = stored.get(name), wanted.get(name)
        if before != now and not (allow_changes and _can_mix(before, now)):
            yield _changed(name, before, now)


def _unlike_the_trials(study: optuna.Study, wanted: Mapping[str, str]) -> Iterator[Problem]:
    """Parameters that Optuna cannot mix with those of the same name in trials that plain Optuna has made.

    Numeric ranges may differ, as they may in Optuna, and parameters may come and go.
    """
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    for name, after in wanted.items():
        before = distribution_to_json(found[name]) if name in found else None
        if before is not None and not _can_mix(before, after):
            yield _changed(name, before, after)
        elif before is not None and "values" in json.loads(after)["attributes"]:
            what = f"is stored as a place in the list of its values, and trials of the study have it as {before}"
            legal = "a range (int, float) or categorical, as in those trials"
            yield Problem(f"optuna: parameters: {name}", what, legal)


def _changed(name: str, before: str | None, after: str | None) -> Problem:
    if before is None:
        found = f"is new, the study was made without it: {after}"
    elif after is None:
        found = f"is gone, the study has it: {before}"
    else:
        found = f"is {after}, but the study was made with {before}"
    ways = "put the old value back" + ("; or --allow-changes" if _can_mix(before, after) else "")
    return Problem(f"optuna: parameters: {name}", found, ways)


def _can_mix(before: str | None, after: str | None) -> bool:
    """Whether Optuna takes both distributions under one name: only numeric ranges may change."""
    if before is None or after is None:
        return True
    old, new = json.loads(before), json.loads(after)
    if old["name"] != new["name"] or old["name"] == "CategoricalDistribution":
        return False
    fixed = old["attributes"].keys() - {"low", "high", "step"}
    return all(old["attributes"][key] == new["attributes"].get(key) for key in fixed)
