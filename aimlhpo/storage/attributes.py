"""What aimlhpo keeps of a study and its trials beside Optuna's own fields, and where it stands in the storage.

User attributes are what Optuna's tools show (`study.trials_dataframe()`, optuna-dashboard, `optuna best-trial`, plots).
They hold what is of use there: each metric that a trial has returned, under its own name, beside what the objective has
set itself. The bookkeeping stands in system attributes, which these tools leave out: a trial's record under `RECORD`,
and the study's own notes under `STUDY_ATTR` and keys that begin with `STUDY_ATTR` and a colon.

Earlier versions kept both in user attributes: the record under `aimlhpo`, the notes under the keys that
they have now. This module alone knows that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    import optuna

STUDY_ATTR = "aimlhpo"
"""The study's signature (see `study`), and the beginning of the keys of all that is ours."""

RECORD = "aimlhpo:record"
"""A trial's record: everything that aimlhpo knows of it beyond Optuna's own fields."""

CONFIRMATION = "aimlhpo:confirmation"
"""Of a study that confirms another one: which configurations are trained, how often, and its seed."""

INFEASIBLE = "infeasible"
"""In a record: a failed trial needed more memory or time than there is, which samplers may learn from."""

PROVENANCE = "aimlhpo:provenance:"
"""Beginning of the keys under which a study keeps what its trials ran on; a trial names its own by the rest."""

_OLD_RECORD = "aimlhpo"  # a user attribute
_LONGEST = 512  # characters of a key that databases hold


# --- trials ---


def record_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """A trial's record, wherever it stands; empty where the trial has none, as those of plain Optuna."""
    record = trial.system_attrs.get(RECORD)
    if record is None:
        record = trial.user_attrs.get(_OLD_RECORD)
    return record if isinstance(record, Mapping) else {}


def metric_attributes(trial: FrozenTrial, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The user attributes that show the metrics of a trial that ends: one for each, under the metric's name.

    What the objective has set under the same name stays as it is. A name that some storage cannot hold as a key has no
    attribute. Databases may compare keys without regard to case, accents and blanks at the end: of names that are the
    same to them, the first has one. The record holds all metrics.
    """
    written = record_of(trial).get("metrics") or {}  # by a batch that was cut off, which is written again
    theirs = trial.user_attrs.items()
    taken = {_as_compared(key) for key, value in theirs if key not in written or not _is_same(written[key], value)}
    found = {}
    for name, value in metrics.items():
        compared = _as_compared(name)
        if compared not in taken and name.isprintable() and 0 < len(name) <= _LONGEST:
            found[name] = value
            taken.add(compared)
    return found


def objective_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """The user attributes that the objective itself has set, or somebody else: neither a metric nor our own."""
    metrics = record_of(trial).get("metrics") or {}
    return {
        key: value
        for key, value in trial.user_attrs.items()
        if not _is_ours(key) and not (key in metrics and _is_same(metrics[key], value))
    }


def _as_compared(key: str) -> str:
    """The key as the least exact of databases compares it."""
    decomposed = unicodedata.normalize("NFKD", key)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold().rstrip()


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # the last for NaN


# --- the study ---


def study_attributes(study: optuna.Study) -> dict[str, Any]:
    """Everything that aimlhpo has noted of the study, by key, as it is now. Raises Optuna's storage errors."""
    storage, study_id = study._storage, study._study_id
    noted = _ours(storage.get_study_system_attrs(study_id))
    if STUDY_ATTR in noted:
        return noted
    return {**_ours(storage.get_study_user_attrs(study_id)), **noted}


def provenances(study: optuna.Study) -> list[Mapping[str, Any]]:
    """All that trials of the study ran on. Raises Optuna's storage errors."""
    return [value for key, value in study_attributes(study).items() if key.startswith(PROVENANCE)]


def set_study_attribute(study: optuna.Study, key: str, value: Any) -> None:
    """Note something of the study; `key` is STUDY_ATTR, or begins with it and a colon."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def move_study_attributes(study: optuna.Study) -> None:
    """Copy what an earlier version noted to where it is looked for first, all but the signature. Under a lock.

    Optuna removes no attributes: the old ones stay, and nobody reads them once the study is signed again.
    """
    storage, study_id = study._storage, study._study_id
    noted = _ours(storage.get_study_system_attrs(study_id))
    if STUDY_ATTR not in noted:
        for key, value in _ours(storage.get_study_user_attrs(study_id)).items():
            if key != STUDY_ATTR and key not in noted:
                set_study_attribute(study, key, value)


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if _is_ours(key)}


def _is_ours(key: str) -> bool:
    return key.partition(":")[0] == STUDY_ATTR
