"""Takes the finished trials of another study over, once over all starts, and keeps account of it in the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aimlhpo.storage_probe import holds_studies
from aimlhpo.suggestions import listing
from aimlhpo.taken import NOTES, TAKEN, notes, taken_trials
from aimlhpo.warm_start.fitting import Fitting, Misfit
from aimlhpo.warm_start.source import Source, find_source, named_source, place_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from aimlhpo.config import Config

_SHOWN = 3  # trials and reasons that are named


@dataclass(frozen=True)
class Account:
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


def take_over(study: optuna.Study, config: Config) -> Account | None:
    """Take over what `warm_start_from` names; None where there is none, or where that was done before.

    The caller holds the ledger's lock. Cut off in the middle, it goes on with the next start. Raises ConfigError.
    """
    if config.optuna.warm_start_from is None or _was_done(study, config):
        return None
    source = find_source(config)
    account = Account(source.name, source.storage)
    _write(study, source, account)
    fitted, left = fit_all(source, config)
    there = {(mark["source"], mark["number"]) for mark in _marks(study)}
    for trial in fitted:
        mark = trial.system_attrs[TAKEN]
        if (mark["source"], mark["number"]) not in there:
            study._storage.create_new_trial(study._study_id, template_trial=trial)
    account = Account(source.name, source.storage, len(fitted), left, done=True)
    _write(study, source, account)
    return account


def fit_all(source: Source, config: Config) -> tuple[list[FrozenTrial], dict[str, list[int]]]:
    """The other study's trials as trials of this one, and the numbers of those that do not fit, by the reason."""
    fitting = Fitting(source.study, config)
    fitted: list[FrozenTrial] = []
    left: dict[str, list[int]] = {}
    for trial in source.study.get_trials(deepcopy=False):
        mark = {"source": source.place, "study": source.name, "number": trial.number}
        try:
            fitted.append(fitting.fit(trial, mark))
        except Misfit as misfit:
            left.setdefault(str(misfit), []).append(trial.number)
    return fitted, left


def account_of(config: Config) -> Account | None:
    """What a first start would take over. Raises ConfigError where the other study cannot be used."""
    if config.optuna.warm_start_from is None:
        return None
    source = find_source(config)
    fitted, left = fit_all(source, config)
    return Account(source.name, source.storage, len(fitted), left)


def is_done(config: Config) -> bool:
    """Whether the study is there and has taken over what the configuration names. Makes no storage."""
    from aimlhpo.storage import load_study, study_exists

    return holds_studies(config.optuna.storage) and study_exists(config) and _was_done(load_study(config), config)


def accounts(study: optuna.Study) -> list[Account]:
    """What the study has taken over."""
    return [Account(**note) for note in notes(study).values()]


def _was_done(study: optuna.Study, config: Config) -> bool:
    note = notes(study).get(place_of(*named_source(config)), {})
    return bool(note.get("done"))


def _marks(study: optuna.Study) -> list[Mapping[str, Any]]:
    return [trial.system_attrs[TAKEN] for trial in taken_trials(study.get_trials(deepcopy=False))]


def _write(study: optuna.Study, source: Source, account: Account) -> None:
    study.set_user_attr(NOTES, {**notes(study), source.place: asdict(account)})
