"""How the best trials are shown: what they reached, and how their configurations differ from the model YAML."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.messages import bold, dim, green
from aimlhpo.results.best import BestTrial, compare_with_default, show_change, show_values

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_MOST = 5  # trials of a Pareto front; `aimlhpo top` has all
_INDENT = " " * 9


def show_best(best: Sequence[BestTrial], config: Config) -> Iterator[str]:
    """The best trial with the values that it changed, or some of the Pareto front in one line each."""
    save_path = config.paths.save_path
    for trial in best[:_MOST]:
        where_from = f", {trial.origin}" if trial.origin else ""
        yield f"{bold('best')}     {green(show_values(trial.values))} (trial {trial.number}{where_from})"
    if len(best) > 1:
        rest = f"{len(best) - _MOST} more on the Pareto front: " if len(best) > _MOST else "the Pareto front: "
        yield f"{_INDENT}{rest}aimlhpo top {save_path}"
    elif best:
        yield from (f"{_INDENT}{line}" for line in _details(best[0], config))


def _details(trial: BestTrial, config: Config) -> Iterator[str]:
    if trial.confirmed is not None and trial.confirmed.mean is not None:
        yield f"confirmed: {trial.confirmed}"
    if trial.unconfirmed is not None:
        number, values = trial.unconfirmed
        way = f"aimlhpo confirm {config.paths.save_path}"
        yield f"found since: {show_values(values)} (trial {number}), not confirmed: {way}"
    if trial.default is not None:
        yield compare_with_default(trial, config)
    rows = [(change.key, *show_change(change)) for change in trial.changes]
    keys, befores = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    room = shutil.get_terminal_size().columns - len(_INDENT)
    for key, before, after in rows:
        line = f"{key.ljust(keys)}  {before.rjust(befores)} -> {after}"
        yield f"{line[: room - 1]}~" if len(line) > room else line
    others = {name: value for name, value in trial.metrics.items() if isinstance(value, int | float | str)}
    if others:
        line = f"also returned: {show_values(others)}"
        yield dim(f"{line[: room - 1]}~" if len(line) > room else line)
