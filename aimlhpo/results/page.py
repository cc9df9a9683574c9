"""The report as one HTML file that needs nothing else, and its figures as files.

The page holds plotly.js and all data, compressed; a browser that opens it from the disk asks nobody for anything. What
users and objectives wrote is escaped: by the template, as JSON, or, in the table, by being set as text.
"""

from __future__ import annotations

import base64
import difflib
import gzip
import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from aimlhpo.config.paths import replace_file
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import show_number
from aimlhpo.results.best import BestTrial, best_text, compare_with_default, show_change, show_values
from aimlhpo.results.confirmation import CELLS, confirmation_cells, confirmation_notes
from aimlhpo.results.figures import Figure, figures_of, require_extra
from aimlhpo.results.report import LEAST_COMPLETE, StudyReport, read_report
from aimlhpo.storage.optuna_internals import collection_paused
from aimlhpo.storage.trials import PEAKS

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)

MOST_BEST = 10  # configurations of a Pareto front that are shown in full
_MODE = 0o600  # the page quotes logs, which may say more than the study's other files
_SECTIONS = {
    "best": "Best configuration", "search": "The search", "parameters": "Parameters", "tradeoffs": "Trade-offs",
    "cost": "Cost", "failures": "Failures", "origin": "How it was made", "all": "All trials",
}  # fmt: skip


@dataclass(frozen=True)
class _DrawnFigure:
    """A figure as the page needs it; `problem` says why it could not be drawn."""

    name: str
    section: str
    title: str
    note: str
    wide: bool
    height: int
    json: str
    problem: str | None = None


def write_report(study: optuna.Study, config: Config, path: Path, refresh: int | None = None) -> Path:
    """Write the page to `path`; with `refresh`, it loads itself anew after as many seconds.

    Raises ConfigError where a package of the extra `report` is missing, OSError, Optuna's storage errors.
    """
    require_extra()
    import jinja2
    from plotly.offline import get_plotlyjs

    with collection_paused():
        report = read_report(study, config)
        drawn = [_drawn(figure) for figure in figures_of(report, study)]
        table = _table(report)
    # Not those that are the best by now: trials may have ended since.
    trials, best = study.get_trials(deepcopy=False), report.best[:MOST_BEST]
    texts = [best_text(trials[trial.number], config, config.space, report.confirmation) for trial in best]
    plots = ",".join(f"{json.dumps(figure.name)}:{figure.json}" for figure in drawn if figure.problem is None)
    data = f'{{"figures":{{{plots}}},"table":{json.dumps(table, allow_nan=False)}}}'
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    several = len(report.metrics) > 1 or report.constraints
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        report=report,
        tiles=list(_tiles(report)),
        sections=[(name, title) for name, title in _SECTIONS.items() if several or name != "tradeoffs"],
        best=[_best(trial, text, config) for trial, text in zip(best, texts, strict=True)],
        confirmation=report.confirmation,
        confirmation_columns=CELLS,
        confirmed=list(confirmation_cells(report.confirmation)) if report.confirmation is not None else [],
        confirmation_notes=list(confirmation_notes(report.confirmation)) if report.confirmation is not None else [],
        more_best=max(0, len(report.best) - MOST_BEST),
        drawn=drawn,
        hours=lambda value: f"{value:.4g}",
        least_complete=LEAST_COMPLETE,
        refresh=refresh,
        plotly=_packed(get_plotlyjs()),
        data=_packed(data),
    )
    replace_file(path, page, _MODE)
    return path


def write_figures(study: optuna.Study, config: Config, directory: Path, formats: Sequence[str]) -> list[Path]:
    """Write each figure to `directory` as a file of each format, such as history.png; no browser is needed.

    One that cannot be drawn is left out, with a warning. Raises what `write_report` raises.
    """
    require_extra()
    from matplotlib import pyplot

    pyplot.switch_backend("agg")

    directory.mkdir(parents=True, exist_ok=True)
    written, report = [], read_report(study, config)
    for figure in figures_of(report, study):
        try:
            drawing = figure.matplotlib()
        except Exception as error:  # noqa: BLE001  as in `_drawn`
            logger.warning("the figure %s could not be drawn: %s: %s", figure.name, type(error).__name__, error)
            continue
        file_name = re.sub(r"[^\w.-]+", "-", figure.name)
        for format in formats:
            path = directory / f"{file_name}.{format}"
            drawing.savefig(path, format=format, dpi=150, bbox_inches="tight")
            written.append(path)
        pyplot.close(drawing)
    return written


def _drawn(figure: Figure) -> _DrawnFigure:
    """The figure as plotly's JSON. What goes wrong with one is said in its place, so that the others are there."""
    text, height, problem = "", 380, None
    try:
        plot = figure.plotly()
        text, height = plot.to_json(), int(plot.layout.height)
    except Exception as error:  # noqa: BLE001  drawing libraries raise anything for values that they do not expect
        problem = f"{type(error).__name__}: {error}"
    wide = not figure.name.startswith(("slice", "contour", "importance", "rungs", "history", "curves"))
    return _DrawnFigure(figure.name, figure.section, figure.title, figure.note, wide, height, text, problem)


def _tiles(report: StudyReport) -> Iterator[tuple[str, str]]:
    counts = report.counts
    yield "trials done", f"{counts.finished} of {report.n_trials}"
    yield "complete, pruned, failed", f"{counts.complete}, {counts.pruned}, {counts.failed}"
    if len(report.metrics) == 1 and report.best:
        best = report.best[0]
        yield f"best {report.metrics[0]} (trial {best.number})", show_number(best.values[report.metrics[0]])
    elif report.best:
        yield "trials on the Pareto front", str(len(report.best))
    yield f"{report.hours.unit} spent", f"{report.hours.spent:.3g}"
    if report.hours.saved is not None:
        yield f"{report.hours.unit} saved by pruning, about", f"{report.hours.saved:.3g}"
    if report.hours.wasted:
        yield f"{report.hours.unit} wasted", f"{sum(report.hours.wasted.values()):.3g}"


def _best(trial: BestTrial, text: str, config: Config) -> dict[str, Any]:
    """One of the best trials for the template."""
    model = {key: value for key, value in config.model.items() if str(key).partition(":")[0] != "optuna"}
    before, after = dump_yaml(model).splitlines(), text.partition("\n\n")[2].splitlines()  # below the comment
    kinds = {"+": "add", "-": "del", " ": "same"}
    lines = difflib.unified_diff(before, after, n=3, lineterm="")
    return {
        "number": trial.number,
        "reached": show_values(trial.values),
        "origin": trial.origin,
        "confirmed": str(trial.confirmed) if trial.confirmed is not None and trial.confirmed.mean is not None else "",
        "compared": compare_with_default(trial, config) if trial.default and len(trial.values) == 1 else "",
        "others": show_values(trial.metrics),
        "changes": [(change.key, *show_change(change)) for change in trial.changes],
        "diff": [(kinds[line[0]], line) for line in lines if line[:1] in kinds and line[:3] not in ("+++", "---")],
        "yaml": text,
    }


def _table(report: StudyReport) -> dict[str, Any]:
    """All trials for the page's table."""
    rows, unit = report.rows, report.hours.unit
    metrics = dict.fromkeys([*report.metrics, *(name for row in rows for name in row.metrics)])
    params = dict.fromkeys(name for row in rows for name in row.params)
    feasible = ["feasible"] if any(row.feasible is not None for row in rows) else []
    section = ["section"] if any(row.section is not None for row in rows) else []
    peaks = [name for name in PEAKS if any(name in row.peaks for row in rows)]
    last = [*section, unit, "attempts", "worker", "device", *peaks, "start", "end", "cause"]
    fixed = ["number", "state", *feasible, *last]
    told_apart = {name: f"params_{name}" if name in fixed or name in metrics else name for name in params}
    columns = ["number", "state", *metrics, *told_apart.values(), *feasible, *last]
    lines = []
    for row in rows:
        judged = [None if row.feasible is None else str(row.feasible).lower()] if feasible else []
        judged += [row.section] if section else []
        start, end = (None if at is None else at.isoformat(sep=" ", timespec="seconds") for at in (row.start, row.end))
        values = [*(row.metrics.get(name) for name in metrics), *(row.params.get(name) for name in params)]
        taken = [row.peaks.get(name) for name in peaks]
        rest = [row.hours, row.attempts, row.worker, row.device, *taken, start, end, row.cause]
        lines.append([_cell(value) for value in (row.number, row.state, *values, *judged, *rest)])
    return {"columns": columns, "rows": lines}


def _cell(value: Any) -> Any:
    """A value that JSON and the table know."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value, default=str)


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8", errors="replace"), mtime=0)).decode()
