"""Whether a study's sampler and pruner suit what it searches: what cannot work together, then a rehearsal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.errors import Problem
from aimlhpo.grid import declared_grid
from aimlhpo.strategies.combinations import combination_problems
from aimlhpo.strategies.constrained import constraint_problems
from aimlhpo.strategies.rehearsal import rehearse
from aimlhpo.strategies.situation import Situation
from aimlhpo.strategies.study import check_strategy, make_pruner, make_sampler

if TYPE_CHECKING:
    from aimlhpo.config import Config


def suitability_problems(config: Config) -> list[Problem]:
    """Every problem of the strategies by themselves; where there is none, those that they have in this study."""
    options = config.optuna
    sections = {"sampler": options.sampler, "pruner": options.pruner, "terminator": options.terminator}
    problems = [problem for kind, section in sections.items() for problem in check_strategy(kind, section)]
    study = Situation.of(config)
    problems += constraint_problems(study)
    if problems or declared_grid(config) is not None:
        return problems
    for kind, section in sections.items():
        if section is not None:
            entry = {"type": section.type, **section.arguments}
            problems += combination_problems(kind, entry, f"optuna: {kind}", study)
    if problems:
        return problems
    sampler = make_sampler(options.sampler, options.seed or 0, study.space.encode)
    return rehearse(sampler, make_pruner(options.pruner), study)
