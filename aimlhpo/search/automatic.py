"""What a study is searched with where its configuration names no sampler or pruner, or says `auto`.

The choice is made once, when the study is made, and kept in the study; a study that has none was made by a version that
knew no choice, and goes on with what it had. `docs/search.md` has the measurements behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna

from aimlhpo.config.fields import AUTO
from aimlhpo.config.optuna_section import PrunerSection, StrategySection
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.attributes import set_study_attribute, study_attributes
from aimlhpo.storage.open import disconnect_storage, holds_studies
from aimlhpo.storage.study import find_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

CHOSEN = "aimlhpo:chosen"
"""The study's attribute that keeps the choice: a sampler and a pruner, each as in a configuration."""

_OPTUNAS = {"sampler": {"type": "TPESampler"}, "pruner": {"type": "MedianPruner"}}
_IN_WORDS = {
    "RungSampler": "TPE on the highest rung with enough results; a Gaussian process where nothing is reported",
    "RungTPESampler": "TPE on the highest rung with enough results",
    "TPESampler": "TPE on complete and pruned trials",
    "ASHA": "the best third goes on at each rung",
    "MedianPruner": "what is worse than the median ends",
    "NopPruner": "nothing is pruned",
}


@dataclass(frozen=True)
class Strategies:
    """A study's sampler and pruner as sections of a configuration, and which of them were not named there."""

    sampler: StrategySection
    pruner: StrategySection
    automatic: tuple[str, ...] = ()

    def in_words(self, kind: str) -> str:
        """One of them for people; kind is "sampler" or "pruner"."""
        name = (self.sampler if kind == "sampler" else self.pruner).type
        return f"auto: {name} ({_IN_WORDS[name]})" if kind in self.automatic else name

    def __str__(self) -> str:
        """In one line, with its reasons where they were chosen."""
        return "; ".join(f"{kind} {self.in_words(kind)}" for kind in ("sampler", "pruner"))


def strategies(config: Config, study: optuna.Study | None = None) -> Strategies:
    """The sampler and the pruner of a study; without one, of a new study with this configuration."""
    chosen = choose(config) if study is None else study_attributes(study).get(CHOSEN, _OPTUNAS)
    sampler, pruner, automatic = config.optuna.sampler, config.optuna.pruner, []
    if sampler is None or sampler.type == AUTO:
        sampler = StrategySection(**chosen["sampler"])
        automatic.append("sampler")
    if pruner is None or pruner.type == AUTO:
        pruner = PrunerSection(**chosen["pruner"])
        automatic.append("pruner")
    return Strategies(sampler, pruner, tuple(automatic))


def strategies_now(config: Config) -> Strategies:
    """Those of the study where it exists, otherwise those that it would get. Makes and changes nothing."""
    study = find_study(config) if holds_studies(config.optuna.storage) else None
    if study is None:
        return strategies(config)
    try:
        return strategies(config, study)
    finally:
        disconnect_storage(study._storage)


def keep_choice(study: optuna.Study, config: Config) -> None:
    """Make the choice for a new study. The caller holds the ledger's lock."""
    if CHOSEN not in study_attributes(study) and not study._storage.get_n_trials(study._study_id):
        set_study_attribute(study, CHOSEN, choose(config))


def choose(config: Config) -> dict[str, dict[str, Any]]:
    """The sampler and the pruner for a new study, as in a configuration."""
    section = config.optuna
    if section.reported_metric is None:  # several metrics, and none to compare trials by
        return {"sampler": _OPTUNAS["sampler"], "pruner": {"type": "NopPruner"}}
    if grid_of(config.space) is not None or len(section.metric) > 1 or section.constraints:
        # A grid is to be seen whole; values at a rung say nothing about other metrics.
        return _OPTUNAS
    if section.sampler is not None and section.sampler.type != AUTO:
        # Samplers of Optuna rank pruned trials by the step they reached: pruning early and often misleads them.
        return _OPTUNAS
    conditional = any(d.type != "multiply" for p in config.space.parameters for d in p.dependencies)
    sampler = {"type": "RungSampler", **({"group": True} if conditional else {})}
    return {"sampler": sampler, "pruner": {"type": "ASHA"}}
