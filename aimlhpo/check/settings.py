"""The checks of a configuration that need neither a storage nor a device: keys against each other, against the model
YAML, and the files and classes that they name.

`load_config` is the way from two YAML files and the command line to a checked Config. A check is a function from a
Config to problems. CHECKS lists them with the keys that each reads; where the schema has refused one of these keys, the
check is left out, so that one mistake is told once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aimlhpo.check.parameters import command_problems, grid_problems, space_problems, too_many_trials_problems
from aimlhpo.config.fields import AUTO
from aimlhpo.config.load import Reading, Source, read_config
from aimlhpo.config.optuna_section import RULES
from aimlhpo.config.resolve import RESOURCES, resolve_tracking, resource_at, variable_problems
from aimlhpo.config.schema import Config, LogSection
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.model_paths import exists, lookup, nearest
from aimlhpo.space.parameter_types import as_number
from aimlhpo.space.search_space import grid_of

STORAGE_SCHEMES = ("sqlite", "journal", "postgresql", "mysql", "redis", "rediss")
LEGAL_STORAGE = (
    "journal, journal:///ABSOLUTE/FILE, FILE.db (in save_path), sqlite:///FILE, "
    "or a postgresql://, mysql:// or redis:// URL"
)
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LEGAL_URI = "http(s)://SERVER, sqlite:///FILE, a postgresql://, mysql:// or mssql:// URL, or a directory"
BOUNDED = ("auto", "RungSampler", "RungTPESampler", "TPESampler", "GPSampler", "PartialFixedSampler")
_CREDENTIALS = re.compile(r"//[^/@]*@")
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")


def load_config(
    hyperparameters: Source,
    model: Source,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    when_read: Callable[[Config], None] = lambda config: None,
) -> Config:
    """Read both files, or take what is given in their places, apply the command line, and check everything.

    Raises ConfigError with all problems.

    `when_read` gets the configuration where each key is right by itself, before the checks that load Optuna.
    """
    return check_reading(read_config(hyperparameters, model, overrides, flags), when_read)


def check_reading(reading: Reading, when_read: Callable[[Config], None] = lambda config: None) -> Config:
    """Check everything in what was read; `when_read` as above. Raises ConfigError with all problems."""
    in_space = space_problems(reading.config) or grid_problems(reading.config)
    reading = _with_trials_of_the_grid(reading, in_space)
    if not reading.problems:
        when_read(reading.config)
    problems = [*reading.problems, *(in_space or too_many_trials_problems(reading.config))]
    for check, keys in CHECKS:
        if not reading.refused.intersection(keys):
            problems += check(reading.config)
    if problems:
        # Say which argument of the command line a problem came from, where it came from one.
        source = {where: f"{where} (from {argument})" for where, argument in reading.sources.items()}
        told = [replace(problem, where=source.get(problem.where, problem.where)) for problem in problems]
        raise ConfigError(dict.fromkeys(told))
    return reading.config


def with_tracking(config: Config, asked: Mapping[str, Any]) -> Config:
    """The same study, with tracking tools asked for as under `log`. Raises ConfigError."""
    written = config.hyperparameters.get("log")
    log = {**(written if isinstance(written, dict) else {}), **asked}
    resolve_tracking(log, config.optuna.save_path, config.optuna.study_name)
    changed = replace(config, log=LogSection.model_validate(log))
    problems = list(tracking_place_problems(changed))
    if problems:
        raise ConfigError(problems)
    return changed


def _with_trials_of_the_grid(reading: Reading, in_space: Sequence[Problem]) -> Reading:
    """Without `n_trials`, a grid has as many trials as permutations.

    With problems in the space nothing will run: they alone are told, and not that the number is missing.
    """
    optuna = reading.config.hyperparameters.get("optuna")
    given = not isinstance(optuna, dict) or optuna.get("n_trials") is not None
    if given or not any(parameter.of_grid for parameter in reading.config.space.parameters):
        return reading
    if in_space:
        return reading.with_n_trials(1)
    grid = grid_of(reading.config.space)
    return reading if grid is None else reading.with_n_trials(grid.permutations)


# --- places: files and URLs ---


def reserved_key_problems(config: Config) -> Iterator[Problem]:
    """The model YAML's key that objectives could not reach."""
    if "optuna" in config.model:
        legal = "another key: objectives find the study's own section under conf['optuna']"
        yield Problem("model: optuna", "this key is taken", legal)


def section_problems(config: Config) -> Iterator[Problem]:
    """Sections of `slurm` that cannot be told apart."""
    names = [section.name for section in config.sections if section.name is not None]
    for name in dict.fromkeys(each for each in names if names.count(each) > 1):
        found = f"{names.count(name)} sections have this name, or this partition and no name"
        yield Problem(key_path("slurm", name), found, "a `name` of its own for each section")


def packing_problems(config: Config) -> Iterator[Problem]:
    """What does not go with a number of trials that is measured, and what that needs."""
    for section in config.sections:
        where, limit = (key_path(*config.keys_of(section), key) for key in ("trials_per_gpu", "max_trials_per_gpu"))
        if not section.packs:
            if "max_trials_per_gpu" in section.model_fields_set:
                yield Problem(limit, "is the limit of auto", "trials_per_gpu: auto, too")
            continue
        if section.workers_per_job is not None:
            yield Problem(where, "auto finds out the number of workers, which workers_per_job sets", "one of the two")
        for key in ("gpus_per_worker", "nodes_per_worker"):
            if (number := getattr(section, key)) > 1:
                found = f"auto measures trials with one GPU each, and {key} is {number}"
                yield Problem(where, found, f"a number; or {key}: 1")
        # What another Python has, which the jobs choose or activate, shows when they run: they say so, and share none.
        if not (section.python or section.bash or section.kernel) and find_spec("pynvml") is None:
            yield Problem(where, "auto measures GPUs with nvidia-ml-py, which is missing", "pip install 'aimlhpo[gpu]'")


def tracking_place_problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the places of tracking tools. Shows no password."""
    mlflow, tensorboard = config.log.mlflow, config.log.tensorboard
    if mlflow is not None and mlflow.uri:
        yield from _uri_problems(mlflow.uri)
    if tensorboard is not None:
        where = key_path("log", "tensorboard", "directory")
        yield from variable_problems(where, tensorboard.directory, path=True)
        if "://" in tensorboard.directory:
            yield Problem(where, f"{show(tensorboard.directory)} is a URL", "a directory")


def _uri_problems(uri: str) -> Iterator[Problem]:
    where = key_path("log", "mlflow", "uri")
    yield from variable_problems(where, uri)
    scheme, separator, rest = uri.partition("://")
    kind = scheme.split("+")[0]
    if uri.startswith("${") or uri.startswith("file:"):
        return
    if _HOST_AND_PORT.fullmatch(uri):
        yield Problem(where, f"{show(uri)} has no scheme", LEGAL_URI, f"http://{uri}")
    elif separator and kind not in (*SERVERS, *DATABASES):
        near = did_you_mean(kind, (*SERVERS, *DATABASES))
        yield Problem(where, f"the scheme {show(kind)} is not known", LEGAL_URI, f"{near}://..." if near else None)
    elif kind in SERVERS and not rest.strip("/"):
        yield Problem(where, f"{show(uri)} names no server", LEGAL_URI)
    elif kind in SERVERS and "@" in urlsplit(uri).netloc:
        legal = f"{kind}://{rest.rpartition('@')[2]}, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"
        yield Problem(where, "holds credentials, which would end up in copies of the configuration", legal)
    elif kind == "sqlite" and (rest in ("", "/") or not rest.startswith("/") or ":memory:" in rest):
        yield Problem(where, f"{show(uri)} names no file", "sqlite:///FILE")


def objective_problems(config: Config) -> Iterator[Problem]:
    """An objective's file that is not there."""
    path, where = config.optuna.objective, key_path("optuna", "objective")
    unset = variable_problems(where, path, path=True)
    yield from unset
    if path is not None and not unset and not Path(path).is_file():
        found = f"{path} is a directory" if Path(path).is_dir() else f"no such file: {path}"
        yield Problem(where, found, "the path of the Python file that holds class Objective")


def _url_problems(where: str, url: str) -> list[Problem]:
    """What is wrong with a storage's URL. Shows no password."""
    shown = show(_CREDENTIALS.sub("//...@", url))
    if url in ("", "journal") or url.startswith("${"):
        return variable_problems(where, url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in STORAGE_SCHEMES:
        near = "postgresql" if scheme == "postgres" else did_you_mean(scheme, STORAGE_SCHEMES)
        guess = f"{near}://..." if near and separator and rest else near
        if Path(url).suffix in (".journal", ".log"):
            guess = f"journal://{os.path.abspath(url)}"
        return [Problem(where, f"{shown} is not a storage", LEGAL_STORAGE, guess)]
    if scheme.startswith("sqlite") and (rest in ("", "/") or ":memory:" in rest):
        return [Problem(where, f"{shown} lives in one process only", "sqlite:///FILE")]
    unset = variable_problems(where, url)
    if unset:
        return unset
    if scheme.startswith("sqlite") and not rest.startswith("/"):
        return [Problem(where, f"{shown} names no file", "sqlite:///FILE", f"sqlite:///{rest}")]
    if scheme == "journal" and not rest.startswith(("/", "${")):
        return [Problem(where, f"{shown} is not an absolute path", LEGAL_STORAGE, f"journal://{os.path.abspath(rest)}")]
    return []


def warm_start_problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the place of the other study as it is written."""
    other, where = config.optuna.warm_start_from, key_path("optuna", "warm_start_from")
    if other is None:
        return
    if other.path is not None and (other.study_name is not None or other.storage is not None):
        yield Problem(where, "has a path, and a study_name or storage beside it", "one of the two ways")
    yield from _url_problems(key_path(where, "storage"), other.storage or "")


# --- metrics and strategies ---


def direction_problems(config: Config) -> Iterator[Problem]:
    """Another number of directions than of metrics."""
    metrics, directions = config.optuna.metric, config.optuna.direction
    if len(metrics) != len(directions):
        shown = show(metrics if len(metrics) > 1 else metrics[0])
        found = f"{len(directions)} given for {len(metrics)} metrics ({shown})"
        yield Problem(key_path("optuna", "direction"), found, "one direction for each metric")


def pruned_metric_problems(config: Config) -> Iterator[Problem]:
    """A pruner's metric that the study does not have, or none where it has several."""
    pruner, metrics = config.optuna.pruner, config.optuna.metric
    where = key_path("optuna", "pruner", "metric")
    if pruner is None:
        return
    if pruner.metric is None and len(metrics) > 1 and pruner.type not in ("NopPruner", AUTO):
        yield Problem(where, f"is missing, and the study has {len(metrics)} metrics", f"one of {listing(metrics)}")
    elif pruner.metric is not None and pruner.metric not in metrics:
        near = did_you_mean(pruner.metric, metrics)
        yield Problem(where, f"{show(pruner.metric)} is no metric of the study", listing(metrics), near)


def strategy_problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the classes and arguments of sampler, pruner and terminator."""
    for kind in ("sampler", "pruner", "terminator"):
        section = getattr(config.optuna, kind)
        if section is not None:
            from aimlhpo.search.building import strategy_problems as problems_of

            # Paths that name no resource are told by `resource_problems`: numbers stand for them.
            entry = {"type": section.type, **_with_numbers(section.arguments)}
            yield from problems_of(kind, entry, key_path("optuna", kind))


def _with_numbers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {"min_resource": 1, "max_resource": 1_000_000}
    return {
        key: _with_numbers(value)
        if isinstance(value, Mapping)
        else numbers[key]
        if _is_resource_path(key, value)
        else value
        for key, value in arguments.items()
    }


def _is_resource_path(key: str, value: Any) -> bool:
    return key in RESOURCES and isinstance(value, str) and value != "auto"


def resource_problems(config: Config) -> Iterator[Problem]:
    """Resources of the pruner, or of one that it wraps, whose colon path names no number."""
    pruner = config.optuna.pruner
    yield from _resource_problems(key_path("optuna", "pruner"), pruner.arguments if pruner else {}, config)


def _resource_problems(above: str, arguments: Mapping[str, Any], config: Config) -> Iterator[Problem]:
    model = config.model
    for key, value in arguments.items():
        where = key_path(above, key)
        if isinstance(value, Mapping):
            yield from _resource_problems(where, value, config)
        elif _is_resource_path(key, value) and resource_at(value, model, config.space) is None:
            if not exists(model, value):
                found, near = f"{show(value)} is not in the model YAML", nearest(model, value)
            elif value in config.space.by_key:
                found, near = f"{value} is searched: it differs from trial to trial", None
            else:
                found, near = f"{value} is {show(lookup(model, value))} in the model YAML", None
            legal = "a whole number, 1 or more, or the colon path of one in the model YAML"
            yield Problem(where, found, legal, near)


def promotion_problems(config: Config) -> Iterator[Problem]:
    """Where ASHA by promotion would pause trials and nothing would come of it."""
    pruner, n_trials = config.optuna.pruner, config.optuna.n_trials
    arguments = pruner.arguments if pruner else {}
    inner = arguments.get("wrapped_pruner")
    if isinstance(inner, Mapping) and inner.get("mode") == "promotion":
        where = key_path("optuna", "pruner", "wrapped_pruner", "mode")
        found = "promotion is no decision to prune, which another pruner could wrap"
        yield Problem(where, found, "stopping; or ASHA as the pruner itself")
    if not config.optuna.promotes:
        return
    # The rungs of the lowest bracket; none where a number is missing or wrong, which is told elsewhere.
    rungs: list[int] = []
    defaults = {"min_resource": 1, "max_resource": None, "reduction_factor": 3, "brackets": 1}
    match [as_number(arguments.get(key, default)) for key, default in defaults.items()]:
        case [int(low), int(high), int(factor), 1] if low >= 1 and factor >= 2:
            from aimlhpo.search.rungs import Ladder

            rungs = Ladder(low, high, factor).resources
    needed = int(as_number(arguments.get("reduction_factor", 3)) or 3) ** len(rungs)
    if rungs and n_trials < needed:  # nobody would be promoted past the last rung, and none would be complete
        found = (
            f"{n_trials} trials cannot fill the rungs at {listing(map(str, rungs))}: none would be promoted to the end"
        )
        yield Problem(key_path("optuna", "n_trials"), found, f"{needed} or more; or a larger min_resource")
    objective = config.optuna.objective
    if objective is not None and Path(objective).is_file():
        beside = sorted(Path(objective).parent.glob("*.py"))
        if not any("checkpoint" in path.read_text(errors="replace").lower() for path in beside):
            found = f"{objective} saves no checkpoint, so a promoted trial would begin anew"
            legal = "stopping; or save the training's state in trial.checkpoint_dir before each report"
            yield Problem(key_path("optuna", "pruner", "mode"), found, legal)


def view_problems(config: Config) -> Iterator[Problem]:
    """Where `sampler_sees` would have no effect."""
    sampler = config.optuna.sampler
    if config.optuna.sampler_sees is not None and sampler is not None and sampler.type not in BOUNDED:
        found = f"has no effect on {sampler.type}, which sees every trial"
        yield Problem(key_path("optuna", "sampler_sees"), found, f"leave it out, or a sampler of {listing(BOUNDED)}")


# --- rules that end a study ---


def target_problems(config: Config) -> Iterator[Problem]:
    """Targets for metrics that the study does not have, or one number for several."""
    target, metrics = config.optuna.target_value, config.optuna.metric
    where = key_path("optuna", "target_value")
    if isinstance(target, dict):
        for name in target:
            if name not in metrics:
                near = did_you_mean(name, metrics)
                yield Problem(key_path(where, name), "is no metric of the study", listing(metrics), near)
    elif target is not None and len(metrics) > 1:
        found = f"{show(as_number(target))} is one number for {len(metrics)} metrics"
        yield Problem(where, found, f"metric: number pairs, of {listing(metrics)}")


def gpu_hour_problems(config: Config) -> Iterator[Problem]:
    """GPU hours in a study without GPUs."""
    if config.optuna.max_gpu_hours is not None and not config.optuna.gpu:
        where = key_path("optuna", "max_gpu_hours")
        yield Problem(where, "counts the time of GPUs, and the study uses none", "gpu: true; or timeout, in seconds")


def patience_problems(config: Config) -> Iterator[Problem]:
    """One distance for values of several metrics."""
    patience, metrics = config.optuna.patience, config.optuna.metric
    if patience is not None and patience.min_delta and len(metrics) > 1:
        where = key_path("optuna", "patience", "min_delta")
        yield Problem(where, f"is one number for {len(metrics)} metrics", "trials alone, where there are several")


def terminator_problems(config: Config) -> Iterator[Problem]:
    """A terminator in a study of several metrics, or one that would ask the objective for what it does not give."""
    terminator, metrics = config.optuna.terminator, config.optuna.metric
    where = key_path("optuna", "terminator")
    if terminator is None:
        return
    if len(metrics) > 1:
        found = f"judges one metric, and the study has {len(metrics)}"
        yield Problem(where, found, "target_value, patience or timeout")
    arguments = terminator.arguments
    improvement = arguments.get("improvement_evaluator")
    kind = improvement.get("type") if isinstance(improvement, Mapping) else improvement
    own = terminator.type == "Terminator" and not arguments.get("error_evaluator")
    if own and kind != "BestValueStagnationEvaluator":
        found = "is missing, and Optuna's default would need cross-validation scores from the objective"
        legal = "StaticErrorEvaluator with its constant, or MedianErrorEvaluator"
        yield Problem(key_path(where, "error_evaluator"), found, legal)


def unused_rule_problems(config: Config) -> Iterator[Problem]:
    """Keys that say how a rule works, without the rule."""
    optuna = config.optuna
    if "timeout_scope" in optuna.model_fields_set and optuna.timeout is None:
        where = key_path("optuna", "timeout_scope")
        yield Problem(where, "says what timeout counts, and there is none", "timeout, too")
    if optuna.at_stop == "prune" and all(getattr(optuna, key) is None for key in RULES):
        yield Problem(key_path("optuna", "at_stop"), "no rule ends the study early", f"one of {listing(RULES)}, too")


Check = Callable[[Config], Iterable[Problem]]
_COMMAND = ("command", "objective", "working_directory", "environment", "parameters")

CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (reserved_key_problems, ()),
    (section_problems, ()),
    (tracking_place_problems, ()),
    (objective_problems, ("objective",)),
    (lambda config: variable_problems("optuna: save_path", config.optuna.save_path, path=True), ("save_path",)),
    (lambda config: _url_problems("optuna: storage", config.optuna.storage), ("storage",)),
    (command_problems, _COMMAND),
    (direction_problems, ("metric", "direction")),
    (target_problems, ("target_value", "metric")),
    (gpu_hour_problems, ("max_gpu_hours", "gpu")),
    (patience_problems, ("patience", "metric")),
    (terminator_problems, ("terminator", "metric")),
    (unused_rule_problems, ("timeout_scope", "at_stop", *RULES)),
    (warm_start_problems, ("warm_start_from",)),
    (strategy_problems, ()),
    (view_problems, ("sampler", "sampler_sees")),
    (packing_problems, ()),
    (resource_problems, ("pruner", "parameters")),
    (pruned_metric_problems, ("pruner", "metric")),
    (promotion_problems, ("pruner", "n_trials", "objective")),
)
"""Every check but those of the search space, with the keys of the `optuna` section that it reads."""
