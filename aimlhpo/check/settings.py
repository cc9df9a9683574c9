"""What ASHA by promotion asks of the rest of the configuration.
Stopping rules that cannot work together with the rest of the study.
`sampler_sees`: a number of trials that only samplers which model the study have a use for.
What the types of single keys cannot tell: the search space against the model, files, strategies, lengths.

These checks read the plain data, so that they run whatever else is wrong with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aimlhpo.check.command import command_problems
from aimlhpo.config.load import annotate, read_config
from aimlhpo.config.optuna_section import pruned_metric_problems, warm_start_problems
from aimlhpo.config.resolve import resource_problems, tracking_problems, variable_problems, without_paths
from aimlhpo.config.schema import Config
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.declared import search_space_problems
from aimlhpo.space.grid import grid_problems
from aimlhpo.space.parameter_types import as_number

PROMOTION = "promotion"
_PRUNER = ("optuna", "pruner")
_WORD = "checkpoint"


def asha_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Where trials would pause and nothing would come of it."""
    pruner = optuna.get("pruner")
    if not isinstance(pruner, Mapping):
        return
    yield from _wrapped(pruner.get("wrapped_pruner"))
    if pruner.get("type") == "ASHA" and pruner.get("mode") == PROMOTION:
        yield from _too_few(optuna, pruner)
        yield from _no_checkpoints(optuna)


def _wrapped(inner: Any) -> Iterator[Problem]:
    if isinstance(inner, Mapping) and inner.get("mode") == PROMOTION:
        found = "promotion is no decision to prune, which another pruner could wrap"
        yield Problem(key_path(*_PRUNER, "wrapped_pruner", "mode"), found, "stopping; or ASHA as the pruner itself")


def _too_few(optuna: Mapping[str, Any], pruner: Mapping[str, Any]) -> Iterator[Problem]:
    """With fewer trials, nobody would be promoted past the last rung, and none would be complete."""
    n_trials = as_number(optuna.get("n_trials"))
    rungs = _rungs(pruner)
    if n_trials is None or not rungs:
        return
    least = as_number(pruner.get("reduction_factor", 3)) or 3
    needed = int(least ** len(rungs))
    if n_trials < needed:
        where = ", ".join(map(str, rungs))
        found = f"{n_trials} trials cannot fill the rungs at {where}: none would be promoted to the end"
        yield Problem(key_path("optuna", "n_trials"), found, f"{needed} or more; or a larger min_resource")


def _rungs(pruner: Mapping[str, Any]) -> list[int]:
    """The rungs of the lowest bracket; none where a number is missing or wrong, which is told elsewhere."""
    from aimlhpo.search.asha import Ladder

    low, high, factor = (as_number(pruner.get(key, default)) for key, default in _RESOURCES.items())
    numbers = [number for number in (low, high, factor) if isinstance(number, int)]
    if len(numbers) < len(_RESOURCES) or numbers[0] < 1 or numbers[2] < 2 or as_number(pruner.get("brackets", 1)) != 1:
        return []
    return Ladder(*numbers).resources


_RESOURCES = {"min_resource": 1, "max_resource": None, "reduction_factor": 3}


def _no_checkpoints(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Neither the objective nor a module beside it mentions a checkpoint: every promoted trial would begin anew."""
    objective = optuna.get("objective")
    if not isinstance(objective, str) or not Path(objective).is_file():
        return
    beside = sorted(Path(objective).parent.glob("*.py"))
    if not any(_WORD in path.read_text(errors="replace").lower() for path in beside):
        found = f"{objective} saves no checkpoint, so a promoted trial would begin anew"
        legal = "stopping; or save the training's state in trial.checkpoint_dir before each report"
        yield Problem(key_path(*_PRUNER, "mode"), found, legal)


RULES = ("timeout", "target_value", "max_gpu_hours", "patience", "terminator")
"""All keys that end a study before `n_trials` does."""


def stopping_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Every stopping rule that can never hold, or that says nothing."""
    metrics = optuna.get("metric", "val_loss")
    names = [str(name) for name in metrics] if isinstance(metrics, list) else [str(metrics)]
    yield from _target(optuna.get("target_value"), names)
    yield from _gpu_hours(optuna)
    yield from _min_delta(optuna.get("patience"), names)
    yield from _terminator(optuna.get("terminator"), names)
    yield from _without_rule(optuna)


def _target(target: Any, metrics: list[str]) -> Iterator[Problem]:
    where = key_path("optuna", "target_value")
    if isinstance(target, Mapping):
        for name in target:
            if str(name) not in metrics:
                near = did_you_mean(name, metrics)
                yield Problem(key_path(where, name), "is no metric of the study", listing(metrics), near)
    elif target is not None and len(metrics) > 1:
        found = f"{show(target)} is one number for {len(metrics)} metrics"
        yield Problem(where, found, f"metric: number pairs, of {listing(metrics)}")


def _gpu_hours(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    if optuna.get("max_gpu_hours") is not None and optuna.get("gpu", False) in (False, 0):
        where = key_path("optuna", "max_gpu_hours")
        yield Problem(where, "counts the time of GPUs, and the study uses none", "gpu: true; or timeout, in seconds")


def _min_delta(patience: Any, metrics: list[str]) -> Iterator[Problem]:
    if isinstance(patience, Mapping) and patience.get("min_delta") and len(metrics) > 1:
        where = key_path("optuna", "patience", "min_delta")
        yield Problem(where, f"is one number for {len(metrics)} metrics", "trials alone, where there are several")


def _terminator(section: Any, metrics: list[str]) -> Iterator[Problem]:
    where = key_path("optuna", "terminator")
    entry = {"type": section} if isinstance(section, str) else section
    if not isinstance(entry, Mapping):
        return
    if len(metrics) > 1:
        yield Problem(
            where, f"judges one metric, and the study has {len(metrics)}", "target_value, patience or timeout"
        )
    improvement = entry.get("improvement_evaluator")
    kind = improvement.get("type") if isinstance(improvement, Mapping) else improvement
    if (
        entry.get("type") == "Terminator"
        and not entry.get("error_evaluator")
        and kind != "BestValueStagnationEvaluator"
    ):
        found = "is missing, and Optuna's default would need cross-validation scores from the objective"
        legal = "StaticErrorEvaluator with its constant, or MedianErrorEvaluator"
        yield Problem(key_path(where, "error_evaluator"), found, legal)


def _without_rule(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    if optuna.get("timeout_scope") is not None and optuna.get("timeout") is None:
        yield Problem(
            key_path("optuna", "timeout_scope"), "says what timeout counts, and there is none", "timeout, too"
        )
    if optuna.get("at_stop") == "prune" and all(optuna.get(key) is None for key in RULES):
        yield Problem(key_path("optuna", "at_stop"), "no rule ends the study early", f"one of {listing(RULES)}, too")


BOUNDED = ("TPESampler", "GPSampler", "PartialFixedSampler")


def view_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Where `sampler_sees` would have no effect."""
    sampler = optuna.get("sampler")
    name = sampler.get("type") if isinstance(sampler, Mapping) else sampler
    if optuna.get("sampler_sees") is not None and isinstance(name, str) and name not in BOUNDED:
        found = f"has no effect on {name}, which sees every trial"
        yield Problem(key_path("optuna", "sampler_sees"), found, f"leave it out, or a sampler of {', '.join(BOUNDED)}")


OUR_KEYS = {"sampler": (), "pruner": ("metric",), "terminator": ()}
"""Keys of a strategy that are no arguments of its class."""


def config_problems(hyperparameters: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Every problem that the schema alone does not see."""
    optuna = hyperparameters.get("optuna")
    found = [*_reserved(model), *tracking_problems(hyperparameters.get("log"))]
    if isinstance(optuna, Mapping):
        space = search_space_problems(optuna, model)
        found += [
            *(space or grid_problems(optuna, model)),
            *_objective(optuna),
            *command_problems(optuna, model),
            *_lengths(optuna),
            *stopping_problems(optuna),
            *warm_start_problems(optuna),
            *_strategies(optuna),
            *view_problems(optuna),
            *resource_problems(optuna, model),
            *pruned_metric_problems(optuna),
            *asha_problems(optuna),
        ]
    return found


def _reserved(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "optuna" in model:
        legal = "another key: objectives find the study's own section under conf['optuna']"
        yield Problem("model: optuna", "this key is taken", legal)


def _objective(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    path = optuna.get("objective")
    where = key_path("optuna", "objective")
    if isinstance(path, str) and path.strip():
        yield from variable_problems(where, path)
        if "\0" not in path and "${" not in path and not Path(path).is_file():
            found = f"{path} is a directory" if Path(path).is_dir() else f"no such file: {path}"
            yield Problem(where, found, "the path of the Python file that holds class Objective")
    yield from variable_problems(key_path("optuna", "save_path"), optuna.get("save_path"))


def _lengths(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    metric, direction = optuna.get("metric", "val_loss"), optuna.get("direction")
    metrics = len(metric) if isinstance(metric, list) else 1
    directions = len(direction) if isinstance(direction, list) else 1
    if direction is not None and metrics and directions and metrics != directions:
        found = f"{directions} given for {metrics} metrics ({show(metric)})"
        yield Problem(key_path("optuna", "direction"), found, "one direction for each metric")


def _strategies(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    for kind in ("sampler", "pruner", "terminator"):
        section = optuna.get(kind)
        if isinstance(section, str):
            section = {"type": section}
        if isinstance(section, Mapping) and isinstance(section.get("type"), str):
            from aimlhpo.search.building import strategy_problems

            entry = {key: value for key, value in without_paths(section).items() if key not in OUR_KEYS[kind]}
            yield from strategy_problems(kind, entry, key_path("optuna", kind))


def load_config(
    hyperparameters: Path,
    model: Path,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    when_read: Callable[[Config], None] = lambda config: None,
) -> Config:
    """Read both files, apply the command line, and check everything. Raises ConfigError with all problems.

    `when_read` gets the configuration where each key is right by itself, before the checks that load Optuna.
    """
    config, read, problems = read_config(hyperparameters, model, overrides, flags)
    if config is not None:
        when_read(config)
    problems += config_problems(read.hyperparameters, read.model)
    found = read.problems + annotate(dict.fromkeys(problems), read.sources)
    if config is None or found:
        raise ConfigError(found)
    return config
