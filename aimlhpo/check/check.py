"""The steps of `aimlhpo check` on a configuration whose settings are right: what the storage, the cluster, the tracking
tools and the objective say; and what would run (`summarize`). Nothing here makes or changes anything that stays.

A step gives problems, or raises an error of ours, which becomes one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.check.parameters import probe_command
from aimlhpo.check.samplers import suitability_problems
from aimlhpo.config.load import load_snapshot
from aimlhpo.config.optuna_section import RULES
from aimlhpo.errors import AimlhpoError, ConfigError, Problem, key_path, show, storage_kind
from aimlhpo.launch.base import launcher_for
from aimlhpo.search.building import strategies_now
from aimlhpo.search.warm_start import default_trial, is_imported, summarize_import
from aimlhpo.space.model_paths import exists, substitute
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.locks import lock_trouble, network
from aimlhpo.storage.open import file_of, holds_studies, literal_password, longest_name
from aimlhpo.storage.study import no_such_study, reload_problems
from aimlhpo.tracking.tracker import tracking_problems
from aimlhpo.worker.devices import Slot, ranks_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

Step = Callable[["Config"], Iterable[Problem]]


def check(
    config: Config, *, local: bool | None = None, allow_changes: bool = False, fork_server: ForkServer | None = None
) -> list[Problem]:
    """All problems of the configuration at once; the objective's, with its traceback, last.

    `local`: the study will run on this machine (default: where there is no `slurm` section).
    `allow_changes`: a reloaded study may have changed ranges and another model YAML.
    `fork_server`: where the objective is being imported already (default: in a process that ends with the check).
    """
    here = config.slurm is None if local is None else local
    steps: list[tuple[str, Step]] = [
        ("optuna: metric", _metrics),
        ("optuna: sampler", suitability_problems),
        ("optuna: save_path", _save_path),
        ("log", tracking_problems),
        ("optuna: storage", lambda config: _storage(config, allow_changes)),
        ("optuna: reload", lambda config: [] if allow_changes else _model(config)),
        ("optuna: enqueue_default", _enqueued_default),
        ("optuna: warm_start_from", _warm_start),
        ("slurm", lambda config: launcher_for(config, local=here).check(config)),
        ("optuna: storage", lambda config: [] if here else _shared_places(config)),
        ("optuna: objective", lambda config: _objective(config, fork_server)),
    ]
    problems: list[Problem] = []
    with ExitStack() as stack:
        if fork_server is None and config.optuna.command is None:
            fork_server = stack.enter_context(ForkServer())
            slot = Slot(0, ranks=ranks_of(config))
            # It is imported while the rest is checked.
            fork_server.load(config.optuna.objective or "", slot.environment())
        for where, step in steps:
            try:
                problems += list(step(config))
            except ConfigError as error:
                problems += error.problems
            except AimlhpoError as error:
                problems.append(Problem(where, str(error)))
    return list(dict.fromkeys(problems))


def summarize(config: Config) -> list[tuple[str, str]]:
    """What would run, in names and values."""
    section, parameters = config.optuna, config.space.parameters
    grid = grid_of(config.space)
    chosen = strategies_now(config)
    goals = [f"{way} {metric}" for metric, way in zip(section.metric, section.direction, strict=True)]
    rules = {key: config.hyperparameters["optuna"].get(key) for key in RULES}
    given = [f"{key} {show(value)}" for key, value in rules.items() if value is not None]
    rows = [
        ("study", f"{section.study_name} ({'reloaded' if section.reload else 'new'})"),
        ("storage", f"{storage_kind(section.storage)}: {section.storage}"),
        ("save_path", section.save_path),
        ("objective", f"{section.objective or section.command}: {', '.join(goals)}"),
        ("parameters", f"{len(parameters)}: {', '.join(p.name for p in parameters)}"),
        ("n_trials", f"{section.n_trials} of {grid.permutations} permutations" if grid else str(section.n_trials)),
    ]
    if given:
        rows.append(("or until", ", ".join(given)))
    if section.warm_start_from is not None and not is_imported(config):
        rows.append(("warm start", str(summarize_import(config))))
    place = "on this machine"
    if config.sections:
        jobs = sum(section.jobs for section in config.sections)
        place = f"in {jobs} SLURM job{'s' if jobs != 1 else ''} (--local: on this machine)"
        if len(config.sections) > 1:
            place += f": {', '.join(f'{section.jobs} of {section.name}' for section in config.sections)}"
    return [
        *rows,
        ("sampler", "none: a full grid" if grid else chosen.in_words("sampler")),
        ("pruner", chosen.in_words("pruner")),
        ("runs", f"{place}, {'a GPU each' if section.gpu else 'no GPU'}"),
    ]


def _metrics(config: Config) -> Iterator[Problem]:
    names = config.optuna.metric
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        yield Problem("optuna: metric", f"{', '.join(repeated)} is named twice", "each metric once")


def _save_path(config: Config) -> Iterator[Problem]:
    path = config.paths.save_path
    reason = _unwritable(path)
    if reason:
        yield Problem("optuna: save_path", reason, "a directory that you may write to")
        return
    snapshot = _snapshot(config)
    owner = snapshot.optuna.study_name if snapshot else None
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
    with suppress(ConfigError):  # a damaged copy is written anew when the study starts
        return load_snapshot(config.paths) if config.paths.hyperparameters.exists() else None
    return None


def _storage(config: Config, allow_changes: bool) -> Iterator[Problem]:
    url = config.optuna.storage
    safe = literal_password(url)
    if safe is not None:
        found = "the URL holds a password, which would end up in copies of the configuration"
        yield Problem("optuna: storage", found, f"{safe}, and the password in the environment")
        return
    longest = longest_name(url)
    names = {"optuna: study_name": config.optuna.study_name}
    names |= {key_path(*parameter.where): parameter.name for parameter in config.space.parameters}
    for where, name in names.items():
        if longest is not None and len(name) > longest:
            found = f"the name {show(name)} has {len(name)} characters"
            yield Problem(where, found, f"at most {longest} in a database; settings: name: a shorter one")
    if holds_studies(url):
        yield from reload_problems(config, allow_changes=allow_changes)
        return
    if config.optuna.reload:
        yield Problem("optuna: reload", no_such_study(config))
    path = file_of(url)
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
    searched = [parameter.key for parameter in config.space.parameters if parameter.substitute]
    return substitute(model, {key: None for key in searched if exists(model, key)})


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Colon path, old value and new value of everything that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            below = f"{path}:{key}" if path else str(key)
            if key in before and key in now:
                yield from _differences(before[key], now[key], below)
            else:
                yield below, show(before[key]) if key in before else "nothing", show(now[key]) if key in now else "gone"
    elif before != now:
        yield path, show(before), show(now)


def _enqueued_default(config: Config) -> list[Problem]:
    if config.optuna.enqueue_default:
        default_trial(config)
    return []


def _warm_start(config: Config) -> list[Problem]:
    """The other study is needed once: it may be gone when this one goes on."""
    if config.optuna.warm_start_from is not None and not is_imported(config):
        summarize_import(config)
    return []


def _shared_places(config: Config) -> Iterator[Problem]:
    """What several jobs share must lie where a lock of one node keeps out the others. SQLite's locks never do."""
    url, jobs = config.optuna.storage, sum(section.jobs for section in config.sections)
    if jobs <= 1:
        return
    places = {"optuna: save_path": config.paths.save_path}
    file = file_of(url) if url.startswith(("sqlite", "journal")) else None
    if file is not None and url.startswith("journal"):
        places["optuna: storage"] = file
    elif file is not None and (kind := network(file)) is not None:
        found = f"{file} is an SQLite file on a network file system ({kind}), and {jobs} jobs would share it"
        legal = "storage: journal (a file too, which needs no server), or a postgresql:// URL"
        yield Problem("optuna: storage", found, legal)
    for where, path in places.items():
        trouble = lock_trouble(path)
        if trouble is not None:
            legal = "a place with locks between nodes: NFS without these options, Lustre mounted with flock, GPFS"
            yield Problem(where, f"{path}: {trouble}", legal)


def _objective(config: Config, fork_server: ForkServer | None) -> list[Problem]:
    if config.optuna.command is not None:
        return list(probe_command(config))
    if config.optuna.objective is None:
        legal = "the path of the Python file that holds class Objective; or `command`: a program to run"
        return [Problem("optuna: objective", "is missing", legal)]
    if fork_server is not None:
        fork_server.verify()
    return []
