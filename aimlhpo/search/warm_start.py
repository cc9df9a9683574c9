"""The study that trials are taken over from.
Takes the finished trials of another study over, once over all starts, and keeps account of it in the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing
from aimlhpo.search.grid import queue_of
from aimlhpo.search.trial_converter import IncompatibleTrial, TrialConverter, default_trial
from aimlhpo.storage.open import holds_studies, literal_password, open_storage, without_experimental_warnings
from aimlhpo.storage.study import create_or_load_study, load_study, study_exists
from aimlhpo.storage.trials import IMPORT_NOTES, IMPORTED, imported_trials, notes

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config

WHERE = key_path("optuna", "warm_start_from")
_LEGAL = "a study's save_path or hyperparameter file; or study_name: NAME, and storage: URL where it is another one"
_SAME = "a study with the same metrics and directions"


@dataclass(frozen=True)
class Source:
    """Another study; `place` is its name and storage in one, to know it again."""

    study: optuna.Study
    storage: str

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def place(self) -> str:
        return place_of(self.storage, self.name)


def place_of(storage: str, name: str) -> str:
    return f"{storage} {name}"


def named_source(config: Config) -> tuple[str, str]:
    """Storage and name of the study that `warm_start_from` names. Raises ConfigError."""
    named = config.optuna.warm_start_from
    if named is None:
        raise ValueError("the configuration names no study")
    if named.path is not None:
        return _in_directory(Path(named.path))
    return named.storage or config.optuna.storage, named.study_name or ""


def _in_directory(path: Path) -> tuple[str, str]:
    """What a save_path, or the one of a hyperparameter file, was last used with."""
    from aimlhpo.config.load import load_paths, load_snapshot
    from aimlhpo.paths import StudyPaths

    if not path.exists():
        raise ConfigError(Problem(WHERE, f"no such file or directory: {path}", _LEGAL))
    paths = StudyPaths(path, "") if path.is_dir() else load_paths(path)
    if not paths.hyperparameters.exists():
        raise ConfigError(Problem(WHERE, f"no study was started in {paths.save_path}", _LEGAL))
    known = load_snapshot(paths)
    return known.optuna.storage, known.optuna.study_name


def find_source(config: Config) -> Source:
    """Open the other study. Raises ConfigError where it is not there or measures something else, StorageError."""
    storage, name = named_source(config)
    if (storage, name) == (config.optuna.storage, config.optuna.study_name):
        raise ConfigError(Problem(WHERE, "is the study itself", "another study"))
    source = Source(_load(storage, name), storage)
    problems = _mismatches(source, config)
    if problems:
        raise ConfigError(problems)
    return source


def _load(storage: str, name: str) -> optuna.Study:

    safe = literal_password(storage)
    if safe is not None:
        found = "the URL holds a password, which would end up in copies of the configuration"
        raise ConfigError(Problem(key_path(WHERE, "storage"), found, f"{safe}, and the password in the environment"))
    if not holds_studies(storage):
        raise ConfigError(Problem(WHERE, f"there is no storage {storage}", _LEGAL))
    opened = open_storage(storage)
    names = [study.study_name for study in opened.get_all_studies()]
    if name not in names:
        found = f"there is no study {name!r} in {storage}"
        raise ConfigError(Problem(WHERE, found, listing(names[:20]) or "a study", did_you_mean(name, names)))
    return optuna.load_study(study_name=name, storage=opened)


def _mismatches(source: Source, config: Config) -> list[Problem]:
    """Why the values of the other study say nothing about this one."""
    directions = [direction.name.lower() for direction in source.study.directions]
    wanted = config.optuna.direction
    if len(directions) != len(wanted):
        found = f"study {source.name!r} has {len(directions)} metrics, and this one has {len(wanted)}"
        return [Problem(WHERE, found, _SAME)]
    problems = []
    if directions != wanted:
        found = f"study {source.name!r} is to {listing(directions)}, and this one to {listing(wanted)}"
        problems.append(Problem(WHERE, found, _SAME))
    metrics = source.study.metric_names
    if metrics and metrics != config.optuna.metric:
        found = f"study {source.name!r} measures {listing(metrics)}, and this one {listing(config.optuna.metric)}"
        problems.append(Problem(WHERE, found, _SAME))
    return problems


_SHOWN = 3  # trials and reasons that are named


@dataclass(frozen=True)
class ImportSummary:
    """How many trials of which study were taken over, and the numbers of the others by the reason."""

    study: str
    storage: str
    taken: int = 0
    left: dict[str, list[int]] = field(default_factory=dict)
    done: bool = False

    def __str__(self) -> str:
        total = self.taken + sum(map(len, self.left.values()))
        said = f"{self.taken} of {total} trials of study {self.study} taken over"
        if not self.left:
            return said
        most = sorted(self.left.items(), key=lambda item: -len(item[1]))
        reasons = [_reason(reason, numbers) for reason, numbers in most[:_SHOWN]]
        more = [f"{len(most) - _SHOWN} more reasons"] if len(most) > _SHOWN else []
        return f"{said}; not: {'; '.join([*reasons, *more])}"


def _reason(reason: str, numbers: list[int]) -> str:
    named = listing([*map(str, numbers[:_SHOWN]), *(["..."] if len(numbers) > _SHOWN else [])])
    return f"{len(numbers)} ({reason}: trial{'s' if len(numbers) > 1 else ''} {named})"


def import_trials(study: optuna.Study, config: Config) -> ImportSummary | None:
    """Take over what `warm_start_from` names; None where there is none, or where that was done before.

    The caller holds the ledger's lock. Cut off in the middle, it goes on with the next start. Raises ConfigError.
    """
    if config.optuna.warm_start_from is None or _was_done(study, config):
        return None
    source = find_source(config)
    account = ImportSummary(source.name, source.storage)
    _write(study, source, account)
    fitted, left = fit_all(source, config)
    there = {(mark["source"], mark["number"]) for mark in _marks(study)}
    for trial in fitted:
        mark = trial.system_attrs[IMPORTED]
        if (mark["source"], mark["number"]) not in there:
            study._storage.create_new_trial(study._study_id, template_trial=trial)
    account = ImportSummary(source.name, source.storage, len(fitted), left, done=True)
    _write(study, source, account)
    return account


def fit_all(source: Source, config: Config) -> tuple[list[FrozenTrial], dict[str, list[int]]]:
    """The other study's trials as trials of this one, and the numbers of those that do not fit, by the reason."""
    fitting = TrialConverter(source.study, config)
    fitted: list[FrozenTrial] = []
    left: dict[str, list[int]] = {}
    for trial in source.study.get_trials(deepcopy=False):
        mark = {"source": source.place, "study": source.name, "number": trial.number}
        try:
            fitted.append(fitting.fit(trial, mark))
        except IncompatibleTrial as misfit:
            left.setdefault(str(misfit), []).append(trial.number)
    return fitted, left


def summarize_import(config: Config) -> ImportSummary | None:
    """What a first start would take over. Raises ConfigError where the other study cannot be used."""
    if config.optuna.warm_start_from is None:
        return None
    source = find_source(config)
    fitted, left = fit_all(source, config)
    return ImportSummary(source.name, source.storage, len(fitted), left)


def is_imported(config: Config) -> bool:
    """Whether the study is there and has taken over what the configuration names. Makes no storage."""

    return holds_studies(config.optuna.storage) and study_exists(config) and _was_done(load_study(config), config)


def import_summaries(study: optuna.Study) -> list[ImportSummary]:
    """What the study has taken over."""
    return [ImportSummary(**note) for note in notes(study).values()]


def _was_done(study: optuna.Study, config: Config) -> bool:
    note = notes(study).get(place_of(*named_source(config)), {})
    return bool(note.get("done"))


def _marks(study: optuna.Study) -> list[Mapping[str, Any]]:
    return [trial.system_attrs[IMPORTED] for trial in imported_trials(study.get_trials(deepcopy=False))]


def _write(study: optuna.Study, source: Source, account: ImportSummary) -> None:
    study.set_user_attr(IMPORT_NOTES, {**notes(study), source.place: asdict(account)})


def begin_study(config: Config, *, allow_changes: bool = False) -> optuna.Study:
    """Create or load the study, and queue the trials that it begins with.

    These are a grid's combinations, the model YAML's own values, the trials listed under `enqueue`, and the finished
    trials of the study under `warm_start_from`; each is added once, over any number of starts.

    Raises StudyError where `reload` and what is stored do not fit.
    """
    return create_or_load_study(config, prepare=partial(_prepare, config), allow_changes=allow_changes)


def _prepare(config: Config, study: optuna.Study) -> None:
    queue = queue_of(study, config)
    if queue is not None:
        queue.begin()
    space = config.space
    default = [default_trial(config)] if config.optuna.enqueue_default else []
    with without_experimental_warnings():
        for values in [*default, *config.enqueued()]:
            study.enqueue_trial(space.encode(values), skip_if_exists=True)
    import_trials(study, config)
