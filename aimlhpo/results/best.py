"""The best trials: which they are, how they differ from the model YAML, and best.yml, ready to train with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.config.paths import replace_file
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import ConfigError, show, show_number
from aimlhpo.results.confirmation import Confirmation, ConfirmedTrial, read_confirmation
from aimlhpo.search.queues import plan_of
from aimlhpo.search.warm_start import default_trial
from aimlhpo.space.constraints import holds
from aimlhpo.space.model_paths import SEARCH_MARK
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.trials import TrialRecord, origin, read_record, selected

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_MISSING = object()


@dataclass(frozen=True)
class Change:
    """A value that differs from the model YAML's own; `added` where the model YAML has none, `removed` afterwards.

    `key` is the colon path in the model YAML, or the name of a parameter that has no place in it.
    """

    key: str
    before: Any
    after: Any
    added: bool = False
    removed: bool = False


@dataclass(frozen=True)
class BestTrial:
    """One of the best trials.

    Attributes:
        values: what the study was judged by, by metric.
        metrics: everything else that the trial returned.
        changes: how its configuration differs from the model YAML.
        default: number and values of the trial that ran the model YAML's own values, where one is complete.
        origin: where the trial comes from, where another study has run it.
        confirmed: what training its configuration again has given, where that was done.
        unconfirmed: of the trial that was proven to be the best: number and values of a trial that the search found to
            be better, and that was not confirmed.
    """

    number: int
    values: dict[str, float]
    metrics: dict[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    default: tuple[int, dict[str, float]] | None = None
    origin: str | None = None
    confirmed: ConfirmedTrial | None = None
    unconfirmed: tuple[int, dict[str, float]] | None = None


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best COMPLETE trial, or all of the Pareto front by number; empty when there is none."""
    if len(study.directions) > 1:
        view = selected(study, study.get_trials(deepcopy=False))  # Optuna would copy each trial
        return sorted(view.best_trials, key=lambda trial: trial.number)
    with suppress(ValueError):  # how Optuna says that no trial is completed yet
        return [study.best_trial]
    return []


def best_or_proven(study: optuna.Study, confirmation: Confirmation | None) -> list[FrozenTrial]:
    """The trial that a confirmation has proven to be the best; without one, the best trials that the search found."""
    if confirmation is None or confirmation.winner is None:
        return best_trials(study)
    return [study.get_trials(deepcopy=False)[confirmation.winner]]


def ranking(study: optuna.Study, most: int) -> list[FrozenTrial]:
    """The `most` best COMPLETE trials that keep the constraints, best first.

    Of several metrics: the Pareto front by number, then the front of the others, and so on.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    left = [trial for trial in complete if holds(trial.constraints)]
    if len(study.directions) == 1:
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        return sorted(left, key=lambda trial: (sign * (trial.value or 0.0), trial.number))[:most]
    found: list[FrozenTrial] = []
    while left and len(found) < most:
        front = best_trials(selected(study, left))
        found += front
        taken = {trial.number for trial in front}
        left = [trial for trial in left if trial.number not in taken]
    return found[:most]


def describe_best(study: optuna.Study, config: Config) -> tuple[BestTrial, ...]:
    """The best trials with all that people ask of them; what a confirmation has proven counts more than the search.

    Empty for a confirmation itself: its best trial is only the luckiest one.
    """
    if plan_of(study) is not None:
        return ()
    confirmation = read_confirmation(study)
    found = best_or_proven(study, confirmation)
    default = _default_of(study.get_trials(deepcopy=False), config) if found else None
    described = tuple(describe(trial, config, default, confirmation) for trial in found)
    searched = best_trials(study)[0] if confirmation is not None and confirmation.winner is not None else None
    if searched is None or confirmation is None or confirmation.of(searched.number) is not None:
        return described
    return (replace(described[0], unconfirmed=(searched.number, _values(searched, config))),)


def describe(
    trial: FrozenTrial,
    config: Config,
    default: FrozenTrial | None = None,
    confirmation: Confirmation | None = None,
) -> BestTrial:
    """A complete trial, compared with the model YAML and with `default`, which ran the model YAML's own values."""
    record = read_record(trial, config.optuna.metric)
    return BestTrial(
        number=trial.number,
        values=_values(trial, config),
        metrics={name: value for name, value in record.metrics.items() if name not in config.optuna.metric},
        changes=tuple(changes(record, config)),
        default=(default.number, _values(default, config)) if default is not None else None,
        origin=origin(trial),
        confirmed=confirmation.of(trial.number) if confirmation is not None else None,
    )


def changes(record: TrialRecord, config: Config) -> Iterator[Change]:
    """How the configuration that a trial trained with differs from the model YAML."""
    yield from _differences(config.model, best_model(record, config, config.space), ())
    for name, value in _without_place(record, config.space).items():
        yield Change(name, None, value, added=True)


def _differences(before: Mapping[Any, Any], after: Mapping[Any, Any], path: tuple[Any, ...]) -> Iterator[Change]:
    for key in {**before, **after}:
        if not path and str(key).partition(":")[0] == "optuna":
            continue
        old, new = before.get(key, _MISSING), after.get(key, _MISSING)
        if isinstance(old, Mapping) and SEARCH_MARK in old:
            old = _MISSING  # the parameter is declared where its value would be
        alike = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
        if alike and any(isinstance(item, Mapping | list) for item in old):
            old, new = dict(enumerate(old)), dict(enumerate(new))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, (*path, key))
        elif old != new:
            added, removed = old is _MISSING, new is _MISSING
            name = ":".join(map(str, (*path, key)))
            yield Change(name, None if added else old, None if removed else new, added, removed)


def _without_place(record: TrialRecord, space: SearchSpace) -> dict[str, Any]:
    """The values of parameters that stand nowhere in the model YAML."""
    placed = {parameter.name for parameter in space.parameters if parameter.path is not None}
    return {name: value for name, value in space.values(record.params).items() if name not in placed}


def _default_of(trials: Sequence[FrozenTrial], config: Config) -> FrozenTrial | None:
    """The first complete trial that ran the model YAML's own values."""
    try:
        params = config.space.encode(default_trial(config))
    except ConfigError:
        return None  # these values are incomplete or outside the search space, so no trial has them
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    return next((trial for trial in complete if trial.params == params), None)


def _values(trial: FrozenTrial, config: Config) -> dict[str, float]:
    return dict(zip(config.optuna.metric, trial.values or (), strict=False))


# --- in words ---


def compare_with_default(trial: BestTrial, config: Config) -> str:
    """How the trial compares with the one that ran the model YAML's own values."""
    number, values = trial.default or (trial.number, trial.values)
    if number == trial.number:
        return "no trial is better than the model YAML's own values"
    metric, direction = config.optuna.metric[0], config.optuna.direction[0]
    before, after = values[metric], trial.values[metric]
    gain = after - before if direction == "maximize" else before - after
    share = f" ({abs(gain / before):.0%})" if before else ""
    word = "better" if gain >= 0 else "worse"
    return f"{show_number(abs(gain))}{share} {word} than {show_values(values)} of the model YAML's own (trial {number})"


def show_change(change: Change) -> tuple[str, str]:
    """A change's value in the model YAML and in the trial; `-` where there is none."""
    return "-" if change.added else _plain(change.before), "-" if change.removed else _plain(change.after)


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else show(value)


def show_values(values: Mapping[str, Any]) -> str:
    """Metrics in one line."""
    return ", ".join(
        f"{name} {show_number(value) if isinstance(value, int | float) else show(value)}"
        for name, value in values.items()
    )


# --- best.yml ---


def write_best(study: optuna.Study, config: Config, space: SearchSpace) -> tuple[Path, ...]:
    """Write best.yml, and best-<number>.yml for each Pareto trial of several metrics; the first path is best.yml.

    Without a COMPLETE trial, and for a confirmation, nothing is written. Raises OSError, ModelPathError.
    """
    if plan_of(study) is not None:
        return ()
    confirmation = read_confirmation(study)
    trials, best = best_or_proven(study, confirmation), config.paths.best
    if not trials:
        return ()
    front = trials if len(config.optuna.metric) > 1 else []
    texts = {best.with_name(f"best-{trial.number}.yml"): best_text(trial, config, space) for trial in front}
    texts[best] = best_text(trials[0], config, space, confirmation)
    for path, text in texts.items():
        replace_file(path, text)
    for path in config.paths.save_path.glob("best-*.yml"):
        # Our own files of trials that are no longer on the Pareto front; a file of the user's has another first line.
        if path not in texts:
            with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
                if file.readline().rstrip("\n") == _header(config):
                    path.unlink(missing_ok=True)
    return (best, *(path for path in texts if path != best))


def best_text(trial: FrozenTrial, config: Config, space: SearchSpace, confirmation: Confirmation | None = None) -> str:
    """The model YAML of one trial, below a comment that says where it comes from."""
    record = read_record(trial, config.optuna.metric)
    known = origin(trial)
    comment = [_header(config), f"# trial: {trial.number}" + (f" ({known})" if known else "")]
    comment += [f"# {_flat(name)}: {_one_line(record.metrics.get(name))}" for name in config.optuna.metric]
    confirmed = confirmation.of(trial.number) if confirmation is not None else None
    if confirmed is not None and confirmed.mean is not None:
        comment.append(f"# confirmed: {confirmed}")
    # Parameters without a place in the model YAML, so that the file has all values of the trial.
    others = _without_place(record, space)
    if others:
        comment += ["# other parameters:", *(f"#   {_flat(name)}: {_one_line(v)}" for name, v in others.items())]
    return "\n".join([*comment, "", dump_yaml(best_model(record, config, space))])


def best_model(record: TrialRecord, config: Config, space: SearchSpace) -> dict[str, Any]:
    """The model config that the trial trained with, as plain data and without `optuna`."""
    model = space.assign(deepcopy(config.model), space.values(record.params))
    for path, value in record.updates.items():
        _put(model, path.split(":"), value)
    return {key: value for key, value in model.items() if str(key).partition(":")[0] != "optuna"}


def _put(node: dict[Any, Any], path: list[str], value: Any) -> None:
    """Set what custom_updates changed: below the keys that are there (which may hold colons), else as a new key."""

    def key_of(text: str) -> Any:
        """The mapping's own key with this text: YAML keys may be numbers or dates."""
        return next((key for key in node if str(key) == text), text)

    for length in range(1, len(path)):
        below = node.get(key_of(":".join(path[:length])))
        if isinstance(below, dict):
            return _put(below, path[length:], value)
    node[key_of(":".join(path))] = value


def _header(config: Config) -> str:
    return f"# Best configuration of the study {_one_line(config.optuna.study_name)}, written by aimlhpo"


def _one_line(value: Any) -> str:
    return str(value) if isinstance(value, (int, float)) else repr(value)


def _flat(name: str) -> str:
    """A name that cannot end its comment line."""
    return " ".join(name.split())
