"""What is right, and could be better.
Everything that can be known before a GPU is spent. Nothing here makes or changes anything that stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import AimlhpoError, ConfigError, Problem, key_path, show
from aimlhpo.launch.base import launcher_for
from aimlhpo.space.parameter_types import as_number
from aimlhpo.tracking.targets import tracking_problems

if TYPE_CHECKING:
    from aimlhpo.check.environment import ObjectiveProbe
    from aimlhpo.config.schema import Config

FEWEST = 3


def hints(config: Config) -> list[str]:
    """Advice on a checked configuration, one line each."""
    return [
        f"{key_path('optuna', 'parameters', key)}: {show(section.settings['choices'])} are numbers in order: "
        "the type ordinal (or log_ordinal) tells the sampler which are neighbours"
        for key, section in config.optuna.parameters.items()
        if section.type == "categorical" and _ordered_numbers(section.settings["choices"])
    ]


def _ordered_numbers(choices: list[object]) -> bool:
    numbers = [None if isinstance(choice, str) else as_number(choice) for choice in choices]
    known = [number for number in numbers if number is not None]
    return len(known) == len(choices) >= FEWEST and known == sorted(known)


Step = Callable[["Config"], Iterable[Problem]]


def check(config: Config, *, local: bool | None = None, allow_changes: bool = False) -> list[Problem]:
    """All problems of the configuration at once; the objective's, with its traceback, last.

    `local`: the study will run on this machine (default: where there is no `slurm` section).
    `allow_changes`: a reloaded study may have changed ranges and another model YAML.
    """
    with _objective_probe(config) as probe:  # imports while the rest is checked
        return list(dict.fromkeys(_problems(config, probe, local=local, allow_changes=allow_changes)))


def _problems(
    config: Config, probe: ObjectiveProbe | None, *, local: bool | None, allow_changes: bool
) -> Iterator[Problem]:
    here = config.slurm is None if local is None else local
    steps: list[tuple[str, Step]] = [
        ("optuna: metric", _metrics),
        ("optuna: parameters", _space),
        ("optuna: sampler", _strategies),
        ("optuna: save_path", _save_path),
        ("log", tracking_problems),
        ("optuna: storage", lambda config: _storage(config, allow_changes)),
        ("optuna: reload", lambda config: [] if allow_changes else _model(config)),
        ("optuna: enqueue_default", _defaults),
        ("optuna: warm_start_from", _warm_start),
        ("slurm", lambda config: launcher_for(config, local=here).check(config)),
        ("optuna: storage", lambda config: [] if here else [*_shared_sqlite(config), *_locks(config)]),
        ("optuna: objective", lambda config: _objective(config, probe)),
    ]
    for where, step in steps:
        yield from _collect(where, step, config)


def _collect(where: str, step: Step, config: Config) -> list[Problem]:
    """The problems a step finds, whether it returns or raises them."""
    try:
        return list(step(config))
    except ConfigError as error:
        return error.problems
    except AimlhpoError as error:
        return [Problem(where, str(error))]


def _metrics(config: Config) -> Iterator[Problem]:
    names = config.optuna.metric
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        yield Problem("optuna: metric", f"{', '.join(repeated)} is named twice", "each metric once")
    if len(config.optuna.direction) != len(names):
        found = f"{len(config.optuna.direction)} directions for {len(names)} metrics"
        yield Problem("optuna: direction", found, "one direction for each metric")


def _space(config: Config) -> Iterable[Problem]:
    from aimlhpo.space.search_space import SearchSpace

    SearchSpace.from_config(config)
    return []


def _strategies(config: Config) -> list[Problem]:
    from aimlhpo.check.samplers import suitability_problems

    return suitability_problems(config)


def _save_path(config: Config) -> Iterator[Problem]:
    path = config.paths.save_path
    reason = _unwritable(path)
    if reason:
        yield Problem("optuna: save_path", reason, "a directory that you may write to")
        return
    owner = _owner(config)
    if owner is not None and owner != config.optuna.study_name:
        found = f"{path} belongs to the study {owner!r}, this one is {config.optuna.study_name!r}"
        yield Problem("optuna: save_path", found, "a directory of the study's own")


def _unwritable(path: Path) -> str | None:
    """Why no file can be made at `path`: tried in the nearest directory that exists, with a file without a name."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists() or parent.is_symlink())
    if not existing.is_dir():
        return f"{existing} is not a directory"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}" + (f" ({existing})" if existing != path else "")
    return None


def _snapshot(config: Config) -> Config | None:
    """The configuration that the save_path was last used with."""
    from aimlhpo.config.load import load_snapshot

    with suppress(ConfigError):  # a damaged copy is written anew when the study starts
        return load_snapshot(config.paths) if config.paths.hyperparameters.exists() else None
    return None


def _owner(config: Config) -> str | None:
    snapshot = _snapshot(config)
    return snapshot.optuna.study_name if snapshot else None


def _storage(config: Config, allow_changes: bool) -> Iterator[Problem]:
    from aimlhpo.storage.open import holds_studies, literal_password

    url = config.optuna.storage
    safe = literal_password(url)
    if safe is not None:
        found = "the URL holds a password, which would end up in copies of the configuration"
        yield Problem("optuna: storage", found, f"{safe}, and the password in the environment")
        return
    if holds_studies(url):
        from aimlhpo.storage.study import reload_problems

        yield from reload_problems(config, allow_changes=allow_changes)
    else:
        yield from _new_storage(config)


def _new_storage(config: Config) -> Iterator[Problem]:
    from aimlhpo.storage.open import file_of
    from aimlhpo.storage.study import no_such_study

    if config.optuna.reload:
        yield Problem("optuna: reload", no_such_study(config))
    path = file_of(config.optuna.storage)
    reason = _unwritable(path.parent) if path is not None else None
    if reason:
        yield Problem("optuna: storage", reason, "a file in a directory that you may write to")


def _model(config: Config) -> Iterator[Problem]:
    """A reloaded study that was begun with another model YAML mixes trials that cannot be compared."""
    snapshot = _snapshot(config) if config.optuna.reload else None
    if snapshot is None or snapshot.optuna.study_name != config.optuna.study_name:
        return
    for path, before, now in _differences(_unsearched(snapshot.model, config), _unsearched(config.model, config)):
        found = f"is {now}, but the study was made with {before}"
        yield Problem(f"model: {path}", found, "put the old value back, or --allow-changes")


def _unsearched(model: dict[str, Any], config: Config) -> dict[str, Any]:
    """The model config without the values that trials replace."""
    from aimlhpo.space.model_paths import exists, substitute

    searched = (key for key, parameter in config.optuna.parameters.items() if parameter.substitute)
    return substitute(model, {key: None for key in searched if exists(model, key)})


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Colon path, old value and new value of everything that differs."""
    from aimlhpo.errors import show

    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            below = f"{path}:{key}" if path else str(key)
            if key in before and key in now:
                yield from _differences(before[key], now[key], below)
            else:
                yield below, show(before[key]) if key in before else "nothing", show(now[key]) if key in now else "gone"
    elif before != now:
        yield path, show(before), show(now)


def _defaults(config: Config) -> list[Problem]:
    from aimlhpo.search.trial_converter import default_trial

    if config.optuna.enqueue_default:
        default_trial(config)
    return []


def _warm_start(config: Config) -> list[Problem]:
    """The other study is needed once: it may be gone when this one goes on."""
    from aimlhpo.search.warm_start import is_imported, summarize_import

    if config.optuna.warm_start_from is not None and not is_imported(config):
        summarize_import(config)
    return []


def _shared_sqlite(config: Config) -> Iterator[Problem]:
    """SQLite's locks do not hold between nodes."""
    from aimlhpo.storage.locks import network
    from aimlhpo.storage.open import file_of

    url = config.optuna.storage
    path = file_of(url) if url.startswith("sqlite") else None
    kind = network(path) if path is not None else None
    if kind is not None and config.slurm is not None and config.slurm.jobs > 1:
        found = (
            f"{path} is an SQLite file on a network file system ({kind}), and {config.slurm.jobs} jobs would share it"
        )
        legal = "storage: journal (a file too, which needs no server), or a postgresql:// URL"
        yield Problem("optuna: storage", found, legal)


def _locks(config: Config) -> Iterator[Problem]:
    """What several jobs share must lie where a lock of one node keeps out the others."""
    from aimlhpo.storage.locks import lock_trouble
    from aimlhpo.storage.open import file_of

    url = config.optuna.storage
    places = {"optuna: save_path": config.paths.save_path}
    if url.startswith("journal") and (file := file_of(url)) is not None:
        places["optuna: storage"] = file
    for where, path in places.items() if config.slurm is not None and config.slurm.jobs > 1 else ():
        trouble = lock_trouble(path)
        if trouble is not None:
            legal = "a place with locks between nodes: NFS without these options, Lustre mounted with flock, GPFS"
            yield Problem(where, f"{path}: {trouble}", legal)


def _objective_probe(config: Config) -> AbstractContextManager[ObjectiveProbe | None]:
    from aimlhpo.check.environment import ObjectiveProbe

    objective = config.optuna.objective
    return nullcontext() if objective is None or config.optuna.command is not None else ObjectiveProbe(objective)


def _objective(config: Config, probe: ObjectiveProbe | None) -> list[Problem]:
    from aimlhpo.check.command import probe_command

    if config.optuna.command is not None:
        return list(probe_command(config))
    if probe is None:
        legal = "the path of the Python file that holds class Objective; or `command`: a program to run"
        return [Problem("optuna: objective", "is missing", legal)]
    probe.verdict()
    return []
