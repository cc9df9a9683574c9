"""best.yml: the model YAML with the values of the best trial, ready to train with."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from aimlhpo.config.yaml import dump_yaml
from aimlhpo.paths import replace_file
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.trials import TrialRecord, origin, read_record

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best COMPLETE trial, or all of the Pareto front by number; empty when there is none."""
    if len(study.directions) > 1:
        return sorted(study.best_trials, key=lambda trial: trial.number)
    with suppress(ValueError):  # how Optuna says that no trial is completed yet
        return [study.best_trial]
    return []


def write_best(study: optuna.Study, config: Config, space: SearchSpace) -> tuple[Path, ...]:
    """Write best.yml, and best-<number>.yml for each Pareto trial of several metrics; the first path is best.yml.

    Without a COMPLETE trial nothing is written. Raises OSError, ModelPathError.
    """
    trials, best = best_trials(study), config.paths.best
    if not trials:
        return ()
    front = trials if len(config.optuna.metric) > 1 else []
    texts = {best.with_name(f"best-{trial.number}.yml"): best_text(trial, config, space) for trial in front}
    texts[best] = best_text(trials[0], config, space)
    for path, text in texts.items():
        replace_file(path, text)
    for path in config.paths.save_path.glob("best-*.yml"):
        # Our own files of trials that are no longer on the Pareto front; a file of the user's has another first line.
        if path not in texts:
            with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
                if file.readline().rstrip("\n") == _header(config):
                    path.unlink(missing_ok=True)
    return (best, *(path for path in texts if path != best))


def best_text(trial: FrozenTrial, config: Config, space: SearchSpace) -> str:
    """The model YAML of one trial, below a comment that says where it comes from."""
    record = read_record(trial, config.optuna.metric)
    known = origin(trial)
    comment = [_header(config), f"# trial: {trial.number}" + (f" ({known})" if known else "")]
    comment += [f"# {_flat(name)}: {_one_line(record.metrics.get(name))}" for name in config.optuna.metric]
    # Parameters without a place in the model YAML, so that the file has all values of the trial.
    placed = {parameter.name for parameter in space.parameters if parameter.path is not None}
    others = {name: value for name, value in space.values(record.params).items() if name not in placed}
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
