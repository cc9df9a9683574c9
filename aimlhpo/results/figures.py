"""The figures of a report, each drawn with plotly for the page and with matplotlib for files.

Optuna's visualization draws what it can, from a study that holds some of the trials; the rest is drawn here from the
report's data, by a class for each figure. `figures_of` says which figures a study has.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.results.report import (
    Hours,
    Importance,
    MetricHistory,
    RungCorrelation,
    Span,
    StudyReport,
    thinned,
)
from aimlhpo.storage.trials import selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from plotly.graph_objects import Figure as Plot

MOST_TRIALS = 1000  # in a figure
MOST_IN_CONTOUR = 100  # its grid grows with the square of it
MOST_LINES = 300  # of parallel coordinates: more are a carpet, and each is a trace of its own
MOST_SLICES, MOST_AXES, MOST_IN_PAIRS = 6, 8, 3  # parameters
COLOURS = {
    "COMPLETE": "#2563eb", "PRUNED": "#d97706", "FAIL": "#dc2626", "PAUSED": "#7c3aed", "RUNNING": "#0891b2",
    "WAITING": "#6b7280",
}  # fmt: skip
_BEST = "#059669"
_HOVER = "%{text}<br>%{x}: %{y}<extra></extra>"
_ROW = 22  # pixels of a worker's row in the timeline


@dataclass(frozen=True)
class Figure(ABC):
    """One figure: the name of its file, its section of the page, its title, and how to read it."""

    name: str
    section: str
    title: str
    note: str

    def plotly(self) -> Plot:
        """For the page."""
        plot = self.plot()
        return plot.update_layout(
            template="plotly_white", title=None, height=plot.layout.height or 380, width=None, autosize=True,
            margin={"l": 56, "r": 16, "t": 24, "b": 48}, font={"family": "system-ui, sans-serif", "size": 12},
        )  # fmt: skip

    def matplotlib(self) -> Drawing:
        """For files."""
        axes = self.draw()
        drawing: Drawing = getattr(axes, "flat", [axes])[0].figure
        return drawing

    @abstractmethod
    def plot(self) -> Plot:
        """As `plotly`, without the style that all figures share."""

    @abstractmethod
    def draw(self) -> Any:
        """The axes of matplotlib's figure."""


def require_extra() -> None:
    """Raises ConfigError where a package of the extra `report` is missing."""
    for package in ("jinja2", "matplotlib", "plotly", "sklearn"):
        if find_spec(package) is None:
            found = f"needs the package {package}, which is not installed"
            raise ConfigError(Problem("report", found, "pip install 'aimlhpo[report]'"))


def figures_of(report: StudyReport, study: optuna.Study) -> Iterator[Figure]:
    """The figures that there is something to show in, in the order of the page."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    shown = thinned(complete, MOST_TRIALS, {best.number for best in report.best})
    some = selected(study, shown)
    thin = _drawn(len(shown), len(complete), "complete trials")
    for index, history in enumerate(report.histories):
        name = "history" if index == 0 else f"history-{index + 1}"
        note = _drawn(len(history.points), history.trials, "complete trials")
        yield HistoryFigure(name, "search", f"Optimization history of {history.metric}", note, history, report.study)
    if report.curves:
        note = _drawn(len(report.curves), report.n_curves, "curves")
        yield CurvesFigure("curves", "search", "Learning curves", f"{note}The best trial is the thick one.", report)
    yield from _of_parameters(report, some, shown, thin)
    if 2 <= len(report.metrics) <= 3 and complete:
        names = list(report.metrics)
        keys = {"target_names": names}
        yield OptunaFigure("pareto", "tradeoffs", "Pareto front", thin, "plot_pareto_front", some, keys)
    if report.rungs is not None:
        note = f"Spearman's correlation over {report.rungs.trials} complete trials. Near 1 at an early rung: pruning "
        note += "there loses little. Pruned trials are not in it."
        yield RungsFigure("rungs", "search", "How well early reports tell the last", note, report.rungs)
    if report.hours.spent:
        yield HoursFigure("hours", "cost", f"{report.hours.unit} spent", "", report.hours)
    if report.spans:
        note = _drawn(len(report.spans), report.n_spans, "trials")
        note += "One row for each worker (agent:slot); of a trial that was interrupted, its last attempt."
        yield TimelineFigure("timeline", "cost", "Agents, workers and trials", note, report.spans)


def _of_parameters(report: StudyReport, some: optuna.Study, shown: list[FrozenTrial], thin: str) -> Iterator[Figure]:
    ranked = _by_importance(report, shown)
    for number, importance in enumerate(report.importances):
        note = (
            f"Mean over {importance.samples} bootstrap samples of {importance.trials} trials; the line reaches from "
            "the 5th to the 95th percentile. "
        )
        if importance.method == "PED-ANOVA":
            note += "What matters for being among the best tenth."
        else:
            note += "Which share of the variance of all trials a parameter explains."
        name = "importance" if number == 0 else f"importance-{number + 1}"
        title = f"Importance for {importance.metric} ({importance.method})"
        yield ImportanceFigure(name, "parameters", title, note, importance)
    if len(shown) < 2 or not ranked:
        return
    value: dict[str, Any] = {"target_name": report.metrics[0]}
    about = ""
    if len(report.metrics) > 1:
        value["target"] = lambda trial: float(trial.values[0])
        about = f" ({report.metrics[0]})"
    if len(ranked) > 1:
        axes = ranked[:MOST_AXES]
        lines = thinned(shown, MOST_LINES, {best.number for best in report.best})
        note = _drawn(len(lines), report.counts.complete, "complete trials")
        view, title = selected(some, lines), f"Parallel coordinates{about}"
        keys = {"params": axes, **value}
        yield OptunaFigure("parallel", "parameters", title, note, "plot_parallel_coordinate", view, keys)
    for name in ranked[:MOST_SLICES]:
        title = f"{name}{about}"
        keys = {"params": [name], **value}
        yield OptunaFigure(f"slice-{name}", "parameters", title, thin, "plot_slice", some, keys)
    few = thinned(shown, MOST_IN_CONTOUR)
    thin = _drawn(len(few), report.counts.complete, "complete trials")
    pairs = ranked[:MOST_IN_PAIRS]
    for pair in [(a, b) for index, a in enumerate(pairs) for b in pairs[index + 1 :]]:
        both = [trial for trial in few if set(pair) <= trial.params.keys()]
        if all(len({str(trial.params[name]) for trial in both}) > 1 for name in pair):
            view, title = selected(some, both), f"{pair[0]} and {pair[1]}{about}"
            name = f"contour-{pair[0]}-{pair[1]}"
            keys = {"params": list(pair), **value}
            yield OptunaFigure(name, "parameters", title, thin, "plot_contour", view, keys)


def _by_importance(report: StudyReport, trials: Sequence[FrozenTrial]) -> list[str]:
    """Parameters that were tried with more than one value, the most important first."""
    tried: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            tried.setdefault(name, set()).add(str(value))
    known = report.importances[0].names if report.importances else ()
    names = [name for name in known if name in tried] + [name for name in tried if name not in known]
    return [name for name in names if len(tried[name]) > 1]


def _drawn(shown: int, total: int, what: str) -> str:
    return f"{shown} of {total} {what} are drawn. " if shown < total else ""


@dataclass(frozen=True)
class OptunaFigure(Figure):
    """A figure that a `function` of `optuna.visualization` and its matplotlib twin draw."""

    function: str
    study: optuna.Study
    keys: Mapping[str, Any]

    def plot(self) -> Plot:
        from optuna import visualization

        with _quiet():
            return getattr(visualization, self.function)(self.study, **self.keys)

    def draw(self) -> Any:
        from optuna.visualization import matplotlib

        with _quiet():
            return getattr(matplotlib, self.function)(self.study, **self.keys)


def _quiet() -> warnings.catch_warnings[None]:
    """Drawing warns of what the reader can do nothing about: experimental functions, colours, few points."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return warnings.catch_warnings(action="ignore")


# --- figures of our own, from the report's data ---


def _new_plot() -> Plot:
    from plotly.graph_objects import Figure as Plot

    return Plot()


def _axes(width: float = 8.0, height: float = 4.5) -> Any:
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained").subplots()


@dataclass(frozen=True)
class HistoryFigure(Figure):
    history: MetricHistory
    study: str

    def plot(self) -> Plot:
        plot = _new_plot()
        for name, colour, numbers, values in self._points():
            plot.add_scatter(
                x=numbers, y=values, mode="markers", name=name, marker={"color": colour, "opacity": 0.6},
                hovertemplate="trial %{x}: %{y}<extra></extra>",
            )  # fmt: skip
        if self.history.best:
            numbers, values = self._best_line()
            line = {"shape": "hv", "color": _BEST}
            plot.add_scatter(x=numbers, y=values, mode="lines", line=line, name="best until then")
        legend = {"orientation": "h", "y": 1.1}
        return plot.update_layout(xaxis_title="trial", yaxis_title=self.history.metric, legend=legend)

    def draw(self) -> Any:
        axes = _axes()
        for name, colour, numbers, values in self._points():
            axes.scatter(numbers, values, s=14, color=colour, alpha=0.6, label=name)
        if self.history.best:
            axes.step(*self._best_line(), where="post", color=_BEST, label="best until then")
        axes.set(xlabel="trial", ylabel=self.history.metric, title=f"Optimization history of {self.study}")
        axes.legend()
        return axes

    def _points(self) -> Iterator[tuple[str, str, list[int], list[float]]]:
        """Name, colour, numbers and values of the trials that keep the constraints, and of those that do not."""
        for keeps, name, colour in ((True, "complete", COLOURS["COMPLETE"]), (False, "infeasible", COLOURS["WAITING"])):
            points = [(number, value) for number, value, holds in self.history.points if holds == keeps]
            if points:
                yield name, colour, [number for number, _ in points], [value for _, value in points]

    def _best_line(self) -> tuple[list[int], list[float]]:
        """The best value until each trial, to its last one."""
        best = self.history.best
        last = max(number for number, _, _ in self.history.points)
        return [*(number for number, _ in best), last], [*(value for _, value in best), best[-1][1]]


@dataclass(frozen=True)
class CurvesFigure(Figure):
    report: StudyReport

    def plot(self) -> Plot:
        plot, best = _new_plot(), {trial.number for trial in self.report.best}
        for state, colour in COLOURS.items():  # one line with gaps for all trials of a state: browsers draw that faster
            curves = [curve for curve in self.report.curves if curve.state == state and curve.number not in best]
            if curves:
                plot.add_scatter(
                    x=[step for curve in curves for step in (*curve.steps, None)],
                    y=[value for curve in curves for value in (*curve.values, None)],
                    text=[f"trial {curve.number}" for curve in curves for _ in range(len(curve.steps) + 1)],
                    mode="lines" if any(len(curve.steps) > 1 for curve in curves) else "markers", name=state.lower(),
                    line={"width": 1, "color": colour}, opacity=0.45, hovertemplate=_HOVER,
                )  # fmt: skip
        for place, curve in enumerate(curve for curve in self.report.curves if curve.number in best):
            plot.add_scatter(
                x=curve.steps, y=curve.values, text=[f"trial {curve.number}"] * len(curve.steps), mode="lines+markers",
                line={"width": 3, "color": _BEST}, marker={"size": 3}, name="best", hovertemplate=_HOVER,
                legendgroup="best", showlegend=place == 0,
            )  # fmt: skip
        legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom"}
        return plot.update_layout(xaxis_title="step", yaxis_title=self._reported(), legend=legend)

    def draw(self) -> Any:
        axes, best = _axes(), {trial.number for trial in self.report.best}
        for curve in self.report.curves:
            thick, style = curve.number in best, "" if len(curve.steps) > 1 else "."
            colour, width, alpha = (_BEST, 2.5, 1.0) if thick else (COLOURS[curve.state], 0.8, 0.45)
            axes.plot(curve.steps, curve.values, style, color=colour, lw=width, alpha=alpha)
        axes.set(xlabel="step", ylabel=self._reported(), title=self.title)
        return axes

    def _reported(self) -> str:
        return self.report.metrics[0] if len(self.report.metrics) == 1 else "reported value"


@dataclass(frozen=True)
class RungsFigure(Figure):
    rungs: RungCorrelation

    def plot(self) -> Plot:
        labels, matrix = self.rungs.labels, self.rungs.matrix
        texts = [["-" if value is None else f"{value:.2f}" for value in row] for row in matrix]
        return _new_plot().add_heatmap(
            x=labels, y=labels, z=matrix, zmin=-1, zmax=1, colorscale="RdBu_r", zmid=0, text=texts,
            texttemplate="%{text}", hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        ).update_yaxes(autorange="reversed")  # fmt: skip

    def draw(self) -> Any:
        axes, labels, matrix = _axes(5.5, 4.5), self.rungs.labels, self.rungs.matrix
        values = [[float("nan") if value is None else value for value in row] for row in matrix]
        image = axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
        for row, line in enumerate(matrix):
            for column, value in enumerate(line):
                axes.text(column, row, "-" if value is None else f"{value:.2f}", ha="center", va="center")
        places = range(len(labels))
        axes.set(xticks=places, xticklabels=labels, yticks=places, yticklabels=labels)
        axes.figure.colorbar(image)
        return axes


@dataclass(frozen=True)
class HoursFigure(Figure):
    hours: Hours

    def bars(self) -> list[tuple[str, float, str]]:
        """Label, hours and colour of each bar: spent, by how trials ended; wasted, by cause; saved.

        Of several sections of `slurm`, each has bars of its own.
        """
        several = {f"{name}: ": self._bars(hours) for name, hours in self.hours.by_section.items()}
        groups = several or {"": self._bars(self.hours)}
        return [(f"{name}{label}", spent, colour) for name, bars in groups.items() for label, spent, colour in bars]

    def _bars(self, hours: Hours) -> list[tuple[str, float, str]]:
        spent = {state: hours.by_end[state] for state in COLOURS if state in hours.by_end and state != "FAIL"}
        bars = [(state.lower(), value, COLOURS[state]) for state, value in spent.items()]
        bars += [(f"wasted: {cause}", wasted, COLOURS["FAIL"]) for cause, wasted in hours.wasted.items()]
        if hours.saved is not None:
            bars.append(("saved by pruning (estimate)", hours.saved, _BEST))
        return bars

    def plot(self) -> Plot:
        labels, values, colours = zip(*self.bars(), strict=True)
        shown = [label if len(label) <= 34 else f"{label[:33]}\N{HORIZONTAL ELLIPSIS}" for label in labels]
        return (
            _new_plot()
            .add_bar(y=labels, x=values, orientation="h", marker={"color": colours}, text=[f"{v:.3g}" for v in values])
            .update_layout(xaxis_title=self.hours.unit, height=90 + 34 * len(labels))
            .update_yaxes(autorange="reversed", automargin=True, tickvals=labels, ticktext=shown)
        )

    def draw(self) -> Any:
        labels, values, colours = zip(*self.bars(), strict=True)
        axes = _axes(8.0, 1.2 + 0.4 * len(labels))
        axes.bar_label(axes.barh(labels, values, color=colours), fmt="%.3g", padding=3)
        axes.invert_yaxis()
        axes.set(xlabel=self.hours.unit)
        return axes


@dataclass(frozen=True)
class TimelineFigure(Figure):
    spans: tuple[Span, ...]

    def plot(self) -> Plot:
        plot, workers = _new_plot(), sorted({span.worker for span in self.spans})
        for state, colour in COLOURS.items():
            spans = [span for span in self.spans if span.state == state]
            if spans:
                plot.add_bar(
                    base=[span.start for span in spans], y=[span.worker for span in spans], orientation="h",
                    x=[(span.end - span.start).total_seconds() * 1000 for span in spans], name=state.lower(),
                    marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
                    customdata=[[span.number, span.end.isoformat(sep=" ", timespec="seconds")] for span in spans],
                    hovertemplate="trial %{customdata[0]}<br>%{base} to %{customdata[1]}<extra>%{y}</extra>",
                )  # fmt: skip
        plot.update_layout(
            barmode="overlay", height=140 + _ROW * len(workers), xaxis_type="date",
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        )  # fmt: skip
        return plot.update_yaxes(categoryorder="array", categoryarray=workers[::-1], automargin=True)

    def draw(self) -> Any:
        workers = sorted({span.worker for span in self.spans})
        axes = _axes(9.0, 1.5 + 0.25 * len(workers))
        for state, colour in COLOURS.items():
            spans = [span for span in self.spans if span.state == state]
            if spans:
                starts = [span.start for span in spans]
                widths = [span.end - span.start for span in spans]
                rows = [workers.index(span.worker) for span in spans]
                axes.barh(
                    rows, widths, left=starts, color=colour, label=state.lower(), edgecolor="white", linewidth=0.3
                )
        axes.tick_params(axis="x", rotation=30)
        axes.set_yticks(range(len(workers)), workers)
        axes.invert_yaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return axes


@dataclass(frozen=True)
class ImportanceFigure(Figure):
    importance: Importance

    def plot(self) -> Plot:
        below, above = self._errors()
        return (
            _new_plot()
            .add_bar(
                y=self.importance.names, x=self.importance.means, orientation="h",
                marker={"color": COLOURS["COMPLETE"]},
                error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
            )
            .update_layout(xaxis_title="importance", height=90 + 28 * len(self.importance.names))
            .update_yaxes(autorange="reversed", automargin=True)
        )  # fmt: skip

    def draw(self) -> Any:
        shown = self.importance
        axes = _axes(8.0, 1.2 + 0.35 * len(shown.names))
        axes.barh(shown.names, shown.means, xerr=self._errors(), color=COLOURS["COMPLETE"], capsize=3)
        axes.invert_yaxis()
        axes.set(xlabel="importance", title=f"{shown.metric} ({shown.method})")
        return axes

    def _errors(self) -> tuple[list[float], list[float]]:
        """How far the line of each bar reaches below and above the mean."""
        shown = self.importance
        below = [max(0.0, mean - low) for low, mean in zip(shown.lows, shown.means, strict=True)]
        return below, [max(0.0, high - mean) for high, mean in zip(shown.highs, shown.means, strict=True)]
