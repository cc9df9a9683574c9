"""What a study searches and optimizes, in a form that a later run is held against."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import Problem

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from aimlhpo.config import Config

_RANGE_KEYS = {"low", "high", "step"}


def of(config: Config) -> dict[str, Any]:
    """Metrics, directions, and each parameter's distribution as Optuna's JSON."""
    from aimlhpo.space import SearchSpace

    return {
        "metric": list(config.optuna.metric),
        "direction": list(config.optuna.direction),
        "constraints": sorted(config.optuna.constraints),
        "space": SearchSpace.from_config(config).fingerprint(),
    }


def differences(study: optuna.Study, config: Config, *, allow_changes: bool = False) -> list[Problem]:
    """Every way in which the configuration asks for another study than the stored one.

    With `allow_changes`, ranges may change and parameters come and go; what Optuna itself cannot mix stays refused.
    """
    stored, wanted = _stored(study), of(config)
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
