"""The note that a rule has ended the study: kept in the study, so that every agent and every later look agrees."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aimlhpo.stopping.rule import Rule
from aimlhpo.storage import STUDY_ATTR

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config
    from aimlhpo.counts import Counts

NOTE = "aimlhpo:ended"
"""User attribute of the study."""


@dataclass(frozen=True)
class Ended:
    """Which rule ended the study and why; `at` in seconds since the epoch, None where nobody noted it."""

    rule: str
    reason: str
    at: float | None = field(default_factory=time.time)
    limit: Any = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


def read_note(study: optuna.Study, rules: Sequence[Rule]) -> Ended | None:
    """The note, where one of the rules left it with the limit that it has now, by the study's last start."""
    attributes = study._storage.get_study_user_attrs(study._study_id)
    for each in rules:
        each.hear(attributes.get(STUDY_ATTR, {}))
    known = {each.key: each.limit for each in rules}
    note = attributes.get(NOTE)
    if not isinstance(note, Mapping):
        return None
    rule, limit = note.get("rule"), note.get("limit")
    return Ended(str(rule), str(note.get("reason")), note.get("at"), limit) if known.get(str(rule)) == limit else None


def write_note(study: optuna.Study, ended: Ended) -> None:
    study.set_user_attr(NOTE, asdict(ended))


def ending_of(study: optuna.Study, config: Config, counts: Counts) -> Ended | None:
    """What has ended the study, the number of trials included; None where it goes on."""
    from aimlhpo.stopping.stops import make_rules

    budget = config.optuna.n_trials
    if counts.finished >= budget:
        return Ended("n_trials", f"{counts.finished} of {budget} trials are finished", None, budget)
    return read_note(study, make_rules(study, config))
