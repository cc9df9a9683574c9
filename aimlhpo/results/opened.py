"""A study in a notebook or a script: `aimlhpo.open_study` gives its best configuration, tables and figures."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas

from aimlhpo.config.load import load_target
from aimlhpo.errors import StudyError, show_number
from aimlhpo.ledger.changes import current_config
from aimlhpo.results.best import best_model, best_or_proven, describe_best, show_change, show_values
from aimlhpo.results.confirmation import read_confirmation
from aimlhpo.results.figures import figures_of, require_extra
from aimlhpo.results.report import StudyReport, read_report
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import read_record, selected

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure as Plot


def open_study(path: str | Path) -> OpenedStudy:
    """Open a study to look at it.

    Args:
        path: the study's directory (`save_path`), or the hyperparameter file that it was started with.

    Returns:
        The study as it is now. It stays so while the study runs on; `refresh` reads it again.

    Raises:
        ConfigError: there is no study at the path.
        StudyError: its storage has no such study.
        StorageError: its storage cannot be reached.
    """
    return OpenedStudy(Path(path))


class OpenedStudy:
    """A study to look at; nothing here changes it.

    Attributes:
        study: the study for Optuna's own functions; what would change it raises StudyError.
        best_config: the model configuration of the best trial, as train() got it. Of several metrics, that of the
            first trial of the Pareto front by number.
        best_trial: the best trial, as Optuna's FrozenTrial; after `aimlhpo confirm`, the one that was proven.
    """

    study: optuna.Study

    def __init__(self, path: Path) -> None:
        self._config = load_target(path)
        self._stored = load_study(self._config)
        self.refresh()

    def refresh(self) -> None:
        """Read the study again. Raises Optuna's storage errors."""
        self._config = current_config(self._stored, self._config)
        self.study = selected(self._stored, self._stored.get_trials(deepcopy=False))
        self._report: StudyReport | None = None
        self._with_importances: StudyReport | None = None

    @property
    def best_trial(self) -> FrozenTrial:
        """Raises StudyError where no trial is complete, or none keeps the constraints."""
        trials = best_or_proven(self.study, read_confirmation(self.study))
        if not trials:
            raise StudyError(f"study {self.study.study_name}: no trial is complete yet, or none keeps the constraints")
        return trials[0]

    @property
    def best_config(self) -> dict[str, Any]:
        """Raises StudyError where no trial is complete, or none keeps the constraints."""
        record = read_record(self.best_trial, self._config.optuna.metric)
        return best_model(record, self._config, self._config.space)

    @property
    def trials(self) -> pandas.DataFrame:
        """All trials by number: state, `params_*`, metrics, section of several, and what each has cost."""
        unit = self._data.hours.unit.replace("-", "_").lower()
        several = any(row.section is not None for row in self._data.rows)
        rows = [
            {
                "number": row.number, "state": row.state,
                **{f"params_{name}": value for name, value in row.params.items()},
                **row.metrics,
                **({} if row.feasible is None else {"feasible": row.feasible}),
                **({"section": row.section} if several else {}),
                unit: row.hours, "attempts": row.attempts, "worker": row.worker, "device": row.device,
                **row.peaks, "start": row.start, "end": row.end, "cause": row.cause,
            }
            for row in self._data.rows
        ]  # fmt: skip
        return pandas.DataFrame(rows).set_index("number") if rows else pandas.DataFrame(rows)

    @property
    def reports(self) -> pandas.DataFrame:
        """Everything that trials have reported: number, step and value."""
        rows = [(t.number, step, value) for t in self.study.trials for step, value in t.intermediate_values.items()]
        return pandas.DataFrame(rows, columns=["number", "step", "value"])

    @property
    def failures(self) -> pandas.DataFrame:
        """Failed trials, the newest first, with cause, error and the last lines of their logs."""
        columns = ["number", "cause", "worker", "end", "error", "lines"]
        rows = [[getattr(failure, name) for name in columns] for failure in self._data.failures]
        return pandas.DataFrame(rows, columns=columns)

    def plot_history(self) -> Plot:
        """How the best value came about."""
        return self.plot("history")

    def plot_curves(self) -> Plot:
        """What trials reported while they trained."""
        return self.plot("curves")

    def plot_importance(self) -> Plot:
        """What each parameter mattered, by PED-ANOVA, with its uncertainty."""
        return self.plot("importance")

    def plot_parallel(self) -> Plot:
        """The most important parameters side by side."""
        return self.plot("parallel")

    def plot_pareto(self) -> Plot:
        """The Pareto front of two or three metrics."""
        return self.plot("pareto")

    def plot_rungs(self) -> Plot:
        """How well early reports tell the last."""
        return self.plot("rungs")

    def plot_hours(self) -> Plot:
        """What the study has cost, and what pruning has saved."""
        return self.plot("hours")

    def plot_timeline(self) -> Plot:
        """Which worker ran which trial when."""
        return self.plot("timeline")

    def plot(self, name: str) -> Plot:
        """Any figure of the report by its name, such as "slice-learning_rate", as plotly's Figure.

        Raises StudyError where the study has no such figure, ConfigError where the extra `report` is not installed.
        """
        require_extra()
        if self._with_importances is None:
            self._with_importances = read_report(self.study, self._config)
        figures = {figure.name: figure for figure in figures_of(self._with_importances, self.study)}
        if name not in figures:
            raise StudyError(f"study {self.study.study_name} has no figure {name!r} yet; it has: {', '.join(figures)}")
        return figures[name].plotly()

    @property
    def _data(self) -> StudyReport:
        if self._report is None:
            self._report = read_report(self.study, self._config, importances=False)
        return self._report

    def __repr__(self) -> str:
        done = len(self.study.get_trials(deepcopy=False))
        return f"<study {self.study.study_name} in {self._config.optuna.save_path}: {done} trials>"

    def _repr_html_(self) -> str:
        """What Jupyter shows: the state of the study, and the best trials with what they changed."""
        counts, text = self._data.counts, html.escape
        lines = [
            f"<b>{text(self.study.study_name)}</b>: {counts.finished} of {self._data.n_trials} trials done, "
            f"{counts.pruned} pruned, {counts.failed} failed; "
            f"{show_number(self._data.hours.spent)} {self._data.hours.unit}"
        ]
        for best in describe_best(self.study, self._config)[:3]:
            rows = (
                f"<tr><td>{text(change.key)}</td><td>{text(before)}</td><td><b>{text(after)}</b></td></tr>"
                for change in best.changes
                for before, after in [show_change(change)]
            )
            lines.append(
                f"<p>best: {text(show_values(best.values))} (trial {best.number})</p>"
                f"<table><tr><th></th><th>model.yml</th><th>trial {best.number}</th></tr>{''.join(rows)}</table>"
            )
        return "".join(lines)
