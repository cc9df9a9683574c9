"""The trials that a study starts with, before its sampler has suggested any.

`begin_study` creates or loads the study and adds, each once over any number of starts: a grid's combinations, the model
YAML's own values (`enqueue_default`), the trials listed under `enqueue`, and the finished trials of the study named by
`warm_start_from`. It runs in the process of the command, before any worker starts.

The trials of the other study are imported with a mark (IMPORTED) that distinguishes them from the study's own. The
study keeps an ImportSummary of them, which `status` shows. The other study is needed only for the first start: it may
be gone when this one is started again.

A trial can be imported when this study could have run it: every parameter that is active has a value that lies in the
search space. What counts is the user's value, not what the other study's storage made of it: an ordinal parameter may
have become an integer, a list of choices may have grown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.config.load import load_paths, load_snapshot
from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.search.building import keep_choice
from aimlhpo.search.queues import queue_of
from aimlhpo.space.distributions import NearestInLog, Positions, Texts
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup
from aimlhpo.space.search_space import NOTHING
from aimlhpo.storage.attributes import STUDY_ATTR, set_study_attribute, study_attributes
from aimlhpo.storage.open import file_of, holds_studies, literal_password, open_storage, without_experimental_warnings
from aimlhpo.storage.study import create_or_load_study, find_study
from aimlhpo.storage.trials import IMPORT_NOTES, IMPORTED, OPTUNA_CONSTRAINT, imported_trials, notes

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config

WHERE = key_path("optuna", "warm_start_from")
_LEGAL = "a study's save_path or hyperparameter file; or study_name: NAME, and storage: URL where it is another one"
_SAME = "a study with the same metrics and directions"
_DEFAULTS = "a value from the search space in the model YAML; or enqueue: with all values, in place of enqueue_default"
_MOST_NAMED = 3  # reasons, and trials for each of them, that a summary names


def begin_study(config: Config, *, allow_changes: bool = False) -> optuna.Study:
    """Create or load the study, and add the trials that it starts with.

    Raises StudyError where `reload` and what is stored do not fit.
    """

    def prepare(study: optuna.Study) -> None:
        """Runs under the ledger's lock."""
        keep_choice(study, config)
        queue = queue_of(study, config)
        if queue is not None:
            queue.begin()
        default = [default_trial(config)] if config.optuna.enqueue_default else []
        with without_experimental_warnings():
            for values in [*default, *config.enqueued()]:
                study.enqueue_trial(config.space.encode(values), skip_if_exists=True)
        import_trials(study, config)

    return create_or_load_study(config, prepare=prepare, allow_changes=allow_changes)


def default_trial(config: Config) -> dict[str, Any]:
    """The model YAML's own values of all parameters that are active with them, by parameter name.

    They are those that `enqueue` takes: before they are multiplied by what they depend on. Raises ConfigError with a
    problem for each parameter whose value is missing or outside the search space.
    """
    final: dict[str, Any] = {}
    enqueued: dict[str, Any] = {}
    problems: list[Problem] = []
    for parameter in config.space.in_order:
        if not parameter.active(final):
            if parameter.otherwise is not NOTHING:
                final[parameter.name] = parameter.otherwise
            continue
        value = lookup(config.model, parameter.key) if exists(config.model, parameter.key) else NOTHING
        if isinstance(value, Mapping) and SEARCH_MARK in value:  # the parameter is declared where its value would be
            value = NOTHING
        final[parameter.name] = suggested = value
        for dependency in parameter.dependencies:
            factor = dependency.value(final)
            if dependency.type == "multiply" and factor not in (NOTHING, 0) and isinstance(value, int | float):
                suggested = suggested / factor
                suggested = int(suggested) if float(suggested).is_integer() else suggested
        enqueued[parameter.name] = suggested
        where = key_path("optuna", "enqueue_default", parameter.key)
        if value is NOTHING:
            problems.append(Problem(where, "has no value in the model YAML", _DEFAULTS))
        elif (legal := parameter.definition.legal(parameter.settings, suggested)) is not None:
            found = f"{show(value)}, the model's own value, is not in the search space ({legal})"
            problems.append(Problem(where, found, _DEFAULTS))
    if problems:
        raise ConfigError(problems)
    return enqueued


@dataclass(frozen=True)
class ImportSummary:
    """How many trials of another study were imported, and the numbers of the others by the reason.

    It is stored in the study under its field names. Attributes:
        study: the other study's name.
        storage: the URL of its storage.
        taken: how many trials were imported.
        left: the numbers of those that were not, by the reason.
        done: False while the import is not complete.
    """

    study: str
    storage: str
    taken: int = 0
    left: dict[str, list[int]] = field(default_factory=dict)
    done: bool = False

    def __str__(self) -> str:
        total = self.taken + sum(map(len, self.left.values()))
        summary = f"{self.taken} of {total} trials of study {self.study} taken over"
        if not self.left:
            return summary
        most = sorted(self.left.items(), key=lambda item: -len(item[1]))
        reasons = []
        for reason, numbers in most[:_MOST_NAMED]:
            more = ["..."] if len(numbers) > _MOST_NAMED else []
            named = listing([*map(str, numbers[:_MOST_NAMED]), *more])
            reasons.append(f"{len(numbers)} ({reason}: trial{'s' if len(numbers) > 1 else ''} {named})")
        if len(most) > _MOST_NAMED:
            reasons.append(f"{len(most) - _MOST_NAMED} more reasons")
        return f"{summary}; not: {'; '.join(reasons)}"


def import_trials(study: optuna.Study, config: Config) -> None:
    """Import what `warm_start_from` names, if it names a study and if that was not done before.

    The caller holds the ledger's lock. The next start completes an import that was cut off. Raises ConfigError.
    """
    if config.optuna.warm_start_from is None or _was_imported(study, config):
        return
    source = find_source(config)
    _write_note(study, source, ImportSummary(source.name, source.storage))
    converted, left = convert_all(source, config)
    present = {_identity(trial) for trial in imported_trials(study.get_trials(deepcopy=False))}
    for trial in converted:
        if _identity(trial) not in present:
            study._storage.create_new_trial(study._study_id, template_trial=trial)
    _write_note(study, source, ImportSummary(source.name, source.storage, len(converted), left, done=True))


def summarize_import(config: Config) -> ImportSummary:
    """What a first start would import. Raises ConfigError where the study under `warm_start_from` cannot be used."""
    source = find_source(config)
    converted, left = convert_all(source, config)
    return ImportSummary(source.name, source.storage, len(converted), left)


def is_imported(config: Config) -> bool:
    """Whether the study exists and has imported what the configuration names. Creates no storage."""
    study = find_study(config) if holds_studies(config.optuna.storage) else None
    return study is not None and _was_imported(study, config)


def import_summaries(study: optuna.Study) -> list[ImportSummary]:
    """What the study has imported."""
    return [ImportSummary(**note) for note in notes(study).values()]


def _identity(trial: FrozenTrial) -> str:
    """What an imported trial is known by, wherever the study that has run it lies now."""
    mark = trial.system_attrs[IMPORTED]
    return json.dumps([mark["study"], mark["number"], sorted(trial.params.items()), trial.values])


def _was_imported(study: optuna.Study, config: Config) -> bool:
    """Whether it was imported from there, or from a place that it was moved away from."""
    storage, name = named_source(config)
    done = [summary for summary in import_summaries(study) if summary.done and summary.study == name]
    return any(summary.storage == storage or _is_gone(summary.storage) for summary in done)


def _is_gone(url: str) -> bool:
    try:
        file = file_of(url)
    except ConfigError:  # a variable of that URL is not set here
        return False
    return file is not None and not file.exists()


def _write_note(study: optuna.Study, source: Source, summary: ImportSummary) -> None:
    set_study_attribute(study, IMPORT_NOTES, {**notes(study), source.place: asdict(summary)})


@dataclass(frozen=True)
class Source:
    """Another study, and the URL of its storage."""

    study: optuna.Study
    storage: str

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def place(self) -> str:
        """Storage and name in one: the key of its ImportSummary, and a part of the mark of its trials."""
        return f"{self.storage} {self.name}"


def convert_all(source: Source, config: Config) -> tuple[list[FrozenTrial], dict[str, list[int]]]:
    """The other study's trials as trials of this one, and the numbers of the incompatible ones, by the reason."""
    converter = TrialConverter(source.study, config)
    converted: list[FrozenTrial] = []
    left: dict[str, list[int]] = {}
    for trial in source.study.get_trials(deepcopy=False):
        mark = {"source": source.place, "study": source.name, "number": trial.number}
        try:
            converted.append(converter.convert(trial, mark))
        except IncompatibleTrial as reason:
            left.setdefault(str(reason), []).append(trial.number)
    return converted, left


def named_source(config: Config) -> tuple[str, str]:
    """Storage and name of the study that `warm_start_from` names. Raises ConfigError."""
    named = config.optuna.warm_start_from
    if named is None:
        raise ValueError("the configuration names no study")
    if named.path is None:
        return named.storage or config.optuna.storage, named.study_name or ""
    path = Path(named.path)
    if not path.exists():
        raise ConfigError(Problem(WHERE, f"no such file or directory: {path}", _LEGAL))
    paths = StudyPaths(path, "") if path.is_dir() else load_paths(path)
    if not paths.hyperparameters.exists():
        raise ConfigError(Problem(WHERE, f"no study was started in {paths.save_path}", _LEGAL))
    used = load_snapshot(paths).optuna
    return used.storage, used.study_name


def find_source(config: Config) -> Source:
    """Open the study that `warm_start_from` names.

    Raises ConfigError where it does not exist or has other metrics, StorageError where its storage cannot be reached.
    """
    storage, name = named_source(config)
    if (storage, name) == (config.optuna.storage, config.optuna.study_name):
        raise ConfigError(Problem(WHERE, "is the study itself", "another study"))
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
    source = Source(optuna.load_study(study_name=name, storage=opened), storage)
    problems = _mismatches(source, config)
    if problems:
        raise ConfigError(problems)
    return source


def _mismatches(source: Source, config: Config) -> list[Problem]:
    """Why the values of the other study say nothing about this one: other metrics, or other directions."""
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


# --- trials of another study ---


class IncompatibleTrial(Exception):
    """Why a trial cannot be imported, in a clause: `x is outside the search space`."""


class TrialConverter:
    """Makes trials of one study from those of another, `source`. The configuration is that of the new study."""

    def __init__(self, source: optuna.Study, config: Config) -> None:
        self._space = config.space
        self._codecs = {parameter.name: parameter.codec for parameter in self._space.parameters}
        self._constraints = [OPTUNA_CONSTRAINT + text for text in config.optuna.constraints]
        # The source's parameters by name, each with its distribution as JSON; None for a study of plain Optuna.
        self._declared: Mapping[str, str] | None = (
            study_attributes(source).get(STUDY_ATTR, {}).get("fingerprint", {}).get("space")
        )

    def convert(self, trial: FrozenTrial, mark: Mapping[str, Any]) -> FrozenTrial:
        """The trial as one of this study, with its values, reports and times; `mark` says where it is from.

        Raises IncompatibleTrial.
        """
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            raise IncompatibleTrial("failed" if trial.state == TrialState.FAIL else "not finished")
        replay = self._replay(trial)
        for key in self._constraints:
            if key not in trial.system_attrs and trial.state == TrialState.COMPLETE:
                raise IncompatibleTrial(f"no value for the constraint {key.removeprefix(OPTUNA_CONSTRAINT)}")
        constraints = {key: trial.system_attrs[key] for key in self._constraints if key in trial.system_attrs}
        converted = create_trial(
            state=trial.state,
            values=trial.values,
            params=replay.params,
            distributions=replay.distributions,
            intermediate_values=trial.intermediate_values,
            system_attrs={IMPORTED: dict(mark), **constraints},
        )
        converted.datetime_start, converted.datetime_complete = trial.datetime_start, trial.datetime_complete
        return converted

    def _replay(self, trial: FrozenTrial) -> ParameterReplay:
        """The trial's parameters, suggested once more from this study's search space."""
        replay = ParameterReplay(
            {name: self._stored(name, value) for name, value in trial.params.items() if name in self._codecs}
        )
        self._space.suggest(replay)
        for name in trial.params.keys() - self._codecs.keys():
            # The objective itself may suggest it here too, unless the other study declares it.
            if self._declared is None or name in self._declared:
                raise IncompatibleTrial(f"{name} is not searched here")
            replay.params[name], replay.distributions[name] = trial.params[name], trial.distributions[name]
        return replay

    def _stored(self, name: str, stored: Any) -> Any:
        """What this study's storage would hold for a value that the other study's storage holds."""
        codec, value = self._codecs[name], stored
        signature = json.loads((self._declared or {}).get(name) or "{}")
        ordered = signature.get("attributes", {}).get("values")
        if ordered is not None:
            known = Positions if signature["name"] == "IntDistribution" else NearestInLog
            value = known(tuple(ordered)).decode(stored)
        try:
            return codec.encode(codec.decode(value) if isinstance(codec, Texts) else value)
        except ValueError:
            raise IncompatibleTrial(f"{name} is outside the search space") from None


class ParameterReplay:
    """A trial whose values are known: it suggests these, and records each with its distribution.

    Raises IncompatibleTrial for a parameter that has no value, or one outside the distribution.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._suggest(name, FloatDistribution(low, high, step=step, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._suggest(name, IntDistribution(low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._values:
            raise IncompatibleTrial(f"no value for {name}")
        value = self._values[name]
        if isinstance(distribution, CategoricalDistribution):  # 1, 1.0 and true are different choices
            inside = any(type(value) is type(choice) and value == choice for choice in distribution.choices)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = not isinstance(distribution, IntDistribution) or (number and float(value) == int(value))
            inside = number and whole and distribution._contains(float(value))
        if not inside:
            raise IncompatibleTrial(f"{name} is outside the search space")
        self.params[name], self.distributions[name] = value, distribution
        return value
