"""The figures of a report, each drawn with plotly for the page and with matplotlib for files.

Optuna's visualization draws what it can, from a study that holds some of the trials; the rest is drawn here from the
report's data. `figures_of` says which figures a study has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import optuna
import optuna.visualization
import optuna.visualization.matplotlib
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.results.report.data import Hours, Importance, MetricHistory, StudyReport, thinned
from aimlhpo.storage.read_only import selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from plotly.graph_objects import Figure as Plot

MOST_TRIALS = 1000  # in a figure
MOST_IN_CONTOUR = 100  # its grid grows with the square of it
MOST_SLICES, MOST_AXES, MOST_IN_PAIRS = 6, 8, 3  # parameters
COLOURS = {
    "COMPLETE": "#2563eb", "PRUNED": "#d97706", "FAIL": "#dc2626", "PAUSED": "#7c3aed", "RUNNING": "#0891b2",
    "WAITING": "#6b7280",
}  # fmt: skip
_BEST = "#059669"
_HOVER = "%{text}<br>%{x}: %{y}<extra></extra>"
_ROW = 22  # pixels of a worker's row in the timeline


@dataclass(frozen=True)
class Figure:
    """One figure: the name of its file, its section of the page, its title, and how to read it."""

    name: str
    section: str
    title: str
    note: str
    plotly: Callable[[], Plot]
    matplotlib: Callable[[], Drawing]


def require_extra() -> None:
    """Raises ConfigError where a package of the extra `report` is missing."""
    try:
        import jinja2
        import matplotlib
        import plotly
        import sklearn
    except ImportError as error:
        found = f"needs the package {error.name}, which is not installed"
        raise ConfigError(Problem("report", found, "pip install 'aimlhpo[report]'")) from error
    del jinja2, matplotlib, plotly, sklearn


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
        drawers = partial(_plot_history, history), partial(_draw_history, history)
        yield _own(name, "search", f"Optimization history of {history.metric}", note, drawers, report)
    if report.curves:
        note = _drawn(len(report.curves), report.n_curves, "curves")
        yield _own("curves", "search", "Learning curves", note + "The best trial is the thick one.", _CURVES, report)
    yield from _of_parameters(report, some, shown, thin)
    if 2 <= len(report.metrics) <= 3 and complete:
        names = list(report.metrics)
        yield _optuna("pareto", "tradeoffs", "Pareto front", thin, "plot_pareto_front", some, target_names=names)
    if report.rungs is not None:
        note = f"Spearman's correlation over {report.rungs.trials} complete trials. Near 1 at an early rung: pruning "
        note += "there loses little. Pruned trials are not in it."
        yield _own("rungs", "search", "How well early reports tell the last", note, _RUNGS, report)
    if report.hours.spent:
        yield _own("hours", "cost", f"{report.hours.unit} spent", "", _HOURS, report)
    if report.spans:
        note = _drawn(len(report.spans), report.n_spans, "trials")
        note += "One row for each worker (agent:slot); of a trial that was interrupted, its last attempt."
        yield _own("timeline", "cost", "Agents, workers and trials", note, _TIMELINE, report)


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
        yield _own(name, "parameters", title, note, _importance_drawers(importance), report)
    if len(shown) < 2 or not ranked:
        return
    value: dict[str, Any] = {"target_name": report.metrics[0]}
    about = ""
    if len(report.metrics) > 1:
        value["target"], about = _value_of(0), f" ({report.metrics[0]})"
    if len(ranked) > 1:
        axes = ranked[:MOST_AXES]
        title = f"Parallel coordinates{about}"
        yield _optuna("parallel", "parameters", title, thin, "plot_parallel_coordinate", some, params=axes, **value)
    for name in ranked[:MOST_SLICES]:
        title = f"{name}{about}"
        yield _optuna(f"slice-{name}", "parameters", title, thin, "plot_slice", some, params=[name], **value)
    few = thinned(shown, MOST_IN_CONTOUR)
    thin = _drawn(len(few), report.counts.complete, "complete trials")
    pairs = ranked[:MOST_IN_PAIRS]
    for pair in [(a, b) for index, a in enumerate(pairs) for b in pairs[index + 1 :]]:
        both = [trial for trial in few if set(pair) <= trial.params.keys()]
        if all(len({str(trial.params[name]) for trial in both}) > 1 for name in pair):
            view, title = selected(some, both), f"{pair[0]} and {pair[1]}{about}"
            name = f"contour-{pair[0]}-{pair[1]}"
            yield _optuna(name, "parameters", title, thin, "plot_contour", view, params=list(pair), **value)


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


def _value_of(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[index])


# --- Optuna's figures ---


def _optuna(name: str, section: str, title: str, note: str, function: str, study: optuna.Study, **keys: Any) -> Figure:
    """A figure that `optuna.visualization` and its matplotlib twin draw."""

    def plotly() -> Plot:
        with _quiet():
            return _styled(getattr(optuna.visualization, function)(study, **keys))

    def matplotlib() -> Drawing:
        with _quiet():
            axes = getattr(optuna.visualization.matplotlib, function)(study, **keys)
        figure: Drawing = getattr(axes, "flat", [axes])[0].figure
        return figure

    return Figure(name, section, title, note, plotly, matplotlib)


def _quiet() -> warnings.catch_warnings[None]:
    """Drawing warns of what the reader can do nothing about: experimental functions, colours, few points."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return warnings.catch_warnings(action="ignore")


def _styled(plot: Plot) -> Plot:
    plot.update_layout(
        template="plotly_white", title=None, height=plot.layout.height or 380, width=None, autosize=True,
        margin={"l": 56, "r": 16, "t": 24, "b": 48}, font={"family": "system-ui, sans-serif", "size": 12},
    )  # fmt: skip
    return plot


# --- figures of our own, from the report's data ---

Drawers = tuple[Callable[[StudyReport], "Plot"], Callable[[StudyReport], "Drawing"]]


def _own(name: str, section: str, title: str, note: str, drawers: Drawers, report: StudyReport) -> Figure:
    plotly, matplotlib = drawers
    return Figure(name, section, title, note, lambda: _styled(plotly(report)), lambda: matplotlib(report))


def _new_plot() -> Plot:
    from plotly.graph_objects import Figure as Plot

    return Plot()


def _axes(width: float = 8.0, height: float = 4.5) -> Any:
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained").subplots()


def _best_line(history: MetricHistory) -> tuple[list[int], list[float]]:
    """The best value until each trial, to its last one."""
    numbers, values = [number for number, _ in history.best], [value for _, value in history.best]
    last = max(number for number, _, _ in history.points)
    return [*numbers, last], [*values, *values[-1:]]


def _plot_history(history: MetricHistory, report: StudyReport) -> Plot:
    plot = _new_plot()
    for feasible, name, colour in ((True, "complete", COLOURS["COMPLETE"]), (False, "infeasible", COLOURS["WAITING"])):
        points = [(number, value) for number, value, holds in history.points if holds == feasible]
        if points:
            plot.add_scatter(
                x=[number for number, _ in points], y=[value for _, value in points], mode="markers", name=name,
                marker={"color": colour, "opacity": 0.6}, hovertemplate="trial %{x}: %{y}<extra></extra>",
            )  # fmt: skip
    if history.best:
        numbers, values = _best_line(history)
        plot.add_scatter(
            x=numbers, y=values, mode="lines", line={"shape": "hv", "color": _BEST}, name="best until then"
        )
    return plot.update_layout(xaxis_title="trial", yaxis_title=history.metric, legend={"orientation": "h", "y": 1.1})


def _draw_history(history: MetricHistory, report: StudyReport) -> Drawing:
    axes = _axes()
    for feasible, name, colour in ((True, "complete", COLOURS["COMPLETE"]), (False, "infeasible", COLOURS["WAITING"])):
        points = [(number, value) for number, value, holds in history.points if holds == feasible]
        if points:
            axes.scatter(*zip(*points, strict=True), s=14, color=colour, alpha=0.6, label=name)
    if history.best:
        axes.step(*_best_line(history), where="post", color=_BEST, label="best until then")
    axes.set(xlabel="trial", ylabel=history.metric, title=f"Optimization history of {report.study}")
    axes.legend()
    return _figure(axes)


def _plot_curves(report: StudyReport) -> Plot:
    plot, best = _new_plot(), {trial.number for trial in report.best}
    for state, colour in COLOURS.items():  # one line with gaps for all trials of a state: browsers draw that faster
        curves = [curve for curve in report.curves if curve.state == state and curve.number not in best]
        if curves:
            plot.add_scatter(
                x=[step for curve in curves for step in (*curve.steps, None)],
                y=[value for curve in curves for value in (*curve.values, None)],
                text=[f"trial {curve.number}" for curve in curves for _ in range(len(curve.steps) + 1)],
                mode="lines" if any(len(curve.steps) > 1 for curve in curves) else "markers", name=state.lower(),
                line={"width": 1, "color": colour}, opacity=0.45, hovertemplate=_HOVER,
            )  # fmt: skip
    for place, curve in enumerate(curve for curve in report.curves if curve.number in best):
        plot.add_scatter(
            x=curve.steps, y=curve.values, text=[f"trial {curve.number}"] * len(curve.steps), mode="lines+markers",
            line={"width": 3, "color": _BEST}, marker={"size": 3}, name="best", hovertemplate=_HOVER,
            legendgroup="best", showlegend=place == 0,
        )  # fmt: skip
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom"}
    return plot.update_layout(xaxis_title="step", yaxis_title=_reported(report), legend=legend)


def _draw_curves(report: StudyReport) -> Drawing:
    axes = _axes()
    best = {trial.number for trial in report.best}
    for curve in report.curves:
        thick, style = curve.number in best, "" if len(curve.steps) > 1 else "."
        colour = _BEST if thick else COLOURS[curve.state]
        axes.plot(curve.steps, curve.values, style, color=colour, lw=2.5 if thick else 0.8, alpha=1 if thick else 0.45)
    axes.set(xlabel="step", ylabel=_reported(report), title="Learning curves")
    return _figure(axes)


def _reported(report: StudyReport) -> str:
    return report.metrics[0] if len(report.metrics) == 1 else "reported value"


def _plot_rungs(report: StudyReport) -> Plot:
    rungs = report.rungs
    assert rungs is not None
    texts = [["-" if value is None else f"{value:.2f}" for value in row] for row in rungs.matrix]
    return _new_plot().add_heatmap(
        x=rungs.labels, y=rungs.labels, z=rungs.matrix, zmin=-1, zmax=1, colorscale="RdBu_r", zmid=0, text=texts,
        texttemplate="%{text}", hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    ).update_yaxes(autorange="reversed")  # fmt: skip


def _draw_rungs(report: StudyReport) -> Drawing:
    rungs, axes = report.rungs, _axes(5.5, 4.5)
    assert rungs is not None
    values = [[float("nan") if value is None else value for value in row] for row in rungs.matrix]
    image = axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
    for row, line in enumerate(rungs.matrix):
        for column, value in enumerate(line):
            axes.text(column, row, "-" if value is None else f"{value:.2f}", ha="center", va="center")
    places = range(len(rungs.labels))
    axes.set(xticks=places, xticklabels=rungs.labels, yticks=places, yticklabels=rungs.labels)
    axes.figure.colorbar(image)
    return _figure(axes)


def hours_bars(report: StudyReport) -> list[tuple[str, float, str]]:
    """Label, hours and colour of each bar: what was spent by how trials ended, failures by cause, what was saved.

    Of several sections of `slurm`, each has bars of its own.
    """
    several = {f"{name}: ": _bars(hours) for name, hours in report.hours.by_section.items()}
    groups = several or {"": _bars(report.hours)}
    return [(f"{name}{label}", spent, colour) for name, bars in groups.items() for label, spent, colour in bars]


def _bars(hours: Hours) -> list[tuple[str, float, str]]:
    bars = [(f"{state.lower()}", hours.by_end[state], COLOURS[state]) for state in COLOURS if state in hours.by_end]
    bars = [bar for bar in bars if bar[0] != "fail"]
    bars += [(f"wasted: {cause}", wasted, COLOURS["FAIL"]) for cause, wasted in hours.wasted.items()]
    if hours.saved is not None:
        bars.append(("saved by pruning (estimate)", hours.saved, _BEST))
    return bars


def _plot_hours(report: StudyReport) -> Plot:
    labels, values, colours = zip(*hours_bars(report), strict=True)
    shown = [label if len(label) <= 34 else f"{label[:33]}\N{HORIZONTAL ELLIPSIS}" for label in labels]
    return (
        _new_plot()
        .add_bar(y=shown, x=values, orientation="h", marker={"color": colours}, text=[f"{v:.3g}" for v in values])
        .update_layout(xaxis_title=report.hours.unit, height=90 + 34 * len(labels))
        .update_yaxes(autorange="reversed", automargin=True)
    )


def _draw_hours(report: StudyReport) -> Drawing:
    labels, values, colours = zip(*hours_bars(report), strict=True)
    axes = _axes(8.0, 1.2 + 0.4 * len(labels))
    axes.bar_label(axes.barh(labels, values, color=colours), fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel=report.hours.unit)
    return _figure(axes)


def _plot_timeline(report: StudyReport) -> Plot:
    plot, workers = _new_plot(), sorted({span.worker for span in report.spans})
    for state, colour in COLOURS.items():
        spans = [span for span in report.spans if span.state == state]
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


def _draw_timeline(report: StudyReport) -> Drawing:
    workers = sorted({span.worker for span in report.spans})
    axes = _axes(9.0, 1.5 + 0.25 * len(workers))
    for state, colour in COLOURS.items():
        spans = [span for span in report.spans if span.state == state]
        if spans:
            starts = [span.start for span in spans]
            widths = [span.end - span.start for span in spans]
            rows = [workers.index(span.worker) for span in spans]
            axes.barh(rows, widths, left=starts, color=colour, label=state.lower(), edgecolor="white", linewidth=0.3)
    axes.tick_params(axis="x", rotation=30)
    axes.set_yticks(range(len(workers)), workers)
    axes.invert_yaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return _figure(axes)


def _importance_drawers(importance: Importance) -> Drawers:
    return partial(_plot_importance, importance), partial(_draw_importance, importance)


def _errors(importance: Importance) -> tuple[list[float], list[float]]:
    above = [max(0.0, high - mean) for high, mean in zip(importance.highs, importance.means, strict=True)]
    return above, [max(0.0, mean - low) for low, mean in zip(importance.lows, importance.means, strict=True)]


def _plot_importance(importance: Importance, report: StudyReport) -> Plot:
    above, below = _errors(importance)
    return (
        _new_plot()
        .add_bar(
            y=importance.names, x=importance.means, orientation="h", marker={"color": COLOURS["COMPLETE"]},
            error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        )
        .update_layout(xaxis_title="importance", height=90 + 28 * len(importance.names))
        .update_yaxes(autorange="reversed", automargin=True)
    )  # fmt: skip


def _draw_importance(importance: Importance, report: StudyReport) -> Drawing:
    axes = _axes(8.0, 1.2 + 0.35 * len(importance.names))
    above, below = _errors(importance)
    axes.barh(importance.names, importance.means, xerr=[below, above], color=COLOURS["COMPLETE"], capsize=3)
    axes.invert_yaxis()
    axes.set(xlabel="importance", title=f"{importance.metric} ({importance.method})")
    return _figure(axes)


def _figure(axes: Any) -> Drawing:
    figure: Drawing = axes.figure
    return figure


_CURVES: Drawers = (_plot_curves, _draw_curves)
_RUNGS: Drawers = (_plot_rungs, _draw_rungs)
_HOURS: Drawers = (_plot_hours, _draw_hours)
_TIMELINE: Drawers = (_plot_timeline, _draw_timeline)
