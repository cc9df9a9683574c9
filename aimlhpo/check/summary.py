"""What a checked configuration would run, in names and values, for `check`, `optimize` and a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.config.optuna_section import RULES
from aimlhpo.errors import show, storage_kind
from aimlhpo.search.automatic import strategies_now
from aimlhpo.search.warm_start import is_imported, summarize_import
from aimlhpo.space.grid import grid_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


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
