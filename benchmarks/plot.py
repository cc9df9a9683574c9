"""The gaps and report costs as a picture, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cells import PEERS, Cell
from benchmarks.measure import Figures
from benchmarks.table import setting

_COLOURS = {"aimlhpo": "#1b6ca8", "optuna": "#d1495b", "echo": "#edae49", "syne": "#66a182", "ray": "#8d96a3"}
_TITLES = {"gap": "idle gap between two trials, median to 99th percentile", "report": "report + should_prune"}


def plot(outcomes: Sequence[tuple[Cell, Figures | None]], file: Path) -> None:
    """Draw what has a median and a 99th percentile. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(_TITLES), 1, figsize=(9, 9), layout="constrained")
    for axis, measure in zip(axes, _TITLES, strict=True):
        cells = [(cell, figures) for cell, figures in outcomes if cell.measure == measure and figures is not None]
        rows = list(dict.fromkeys(cell.row for cell, _ in cells))[::-1]
        for peer in PEERS:
            mine = [(rows.index(cell.row), figures) for cell, figures in cells if cell.peer == peer]
            places = [row + 0.15 * (2 - PEERS.index(peer)) for row, _ in mine]
            lows, highs = [1000 * f["median"] for _, f in mine], [1000 * f["p99"] for _, f in mine]
            axis.hlines(places, lows, highs, color=_COLOURS[peer], linewidth=2)
            axis.plot(lows, places, "o", color=_COLOURS[peer], label=peer)
        axis.set_yticks(range(len(rows)), [setting(row) for row in rows])
        axis.set(xscale="log", xlabel="milliseconds", title=_TITLES[measure])
        axis.grid(axis="x", alpha=0.3)
    axes[0].legend(loc="lower right")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
