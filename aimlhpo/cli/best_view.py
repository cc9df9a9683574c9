"""How the best trials are shown: what they reached, and how their configurations differ from the model YAML."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aimlhpo.cli.messages import bold, dim, green
from aimlhpo.errors import show, show_number

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.results.best import BestTrial, Change

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


def compare_with_default(trial: BestTrial, config: Config) -> str:
    """How the trial compares with the one that ran the model YAML's own values."""
    number, values = trial.default or (trial.number, trial.values)
    if number == trial.number:
        return "no trial is better than the model YAML's own values"
    metric, direction = config.optuna.metric[0], config.optuna.direction[0]
    before, after = values[metric], trial.values[metric]
    gain = after - before if direction == "maximize" else before - after
    share = f" ({abs(gain / before):.0%})" if before else ""
    word = "better" if gain >= 0 else "worse"
    return f"{show_number(abs(gain))}{share} {word} than {show_values(values)} of the model YAML's own (trial {number})"


def show_change(change: Change) -> tuple[str, str]:
    """A change's value in the model YAML and in the trial; `-` where there is none."""
    return "-" if change.added else _plain(change.before), "-" if change.removed else _plain(change.after)


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else show(value)


def show_values(values: Mapping[str, Any]) -> str:
    """Metrics in one line."""
    return ", ".join(
        f"{name} {show_number(value) if isinstance(value, int | float) else show(value)}"
        for name, value in values.items()
    )
