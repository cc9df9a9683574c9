"""Live progress: a picture in a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aimlhpo import readable as shown
from aimlhpo.launch.lines import LinesView
from aimlhpo.launch.view import ThreadedView, View
from aimlhpo.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from aimlhpo.config import Config
    from aimlhpo.launch.dashboard import Dashboard

__all__ = ["View", "make_view"]


def make_view(config: Config) -> View:
    """The view that fits where standard output goes."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    return TerminalView(config, console) if console.is_terminal and not console.is_dumb_terminal else LinesView()


class TerminalView(ThreadedView):
    """Redraws a dashboard in place; lines worth keeping scroll past above it."""

    def __init__(self, config: Config, console: Console) -> None:
        from rich.live import Live

        super().__init__()
        self._title = config.optuna.study_name
        self._storage = shown.storage_kind(config.optuna.storage)
        self._metric = config.optuna.metric[0]
        self._console = console
        self._live = Live(self._frame(Progress()), console=console, auto_refresh=False, transient=False)

    def begin(self) -> None:
        self._live.start(refresh=True)

    def paint_line(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def paint(self, snapshot: Progress) -> None:
        self._live.update(self._frame(snapshot), refresh=True)

    def end(self, snapshot: Progress) -> None:
        self._live.stop()

    def _frame(self, snapshot: Progress) -> Dashboard:
        from aimlhpo.launch.dashboard import Dashboard

        return Dashboard(self._title, self._storage, self._metric, snapshot)
