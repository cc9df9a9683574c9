"""How a running study is shown: a picture in a terminal, and plain lines in logs and pipes, when something has changed.

Both views paint in a thread of their own, so that a slow terminal does not keep the agent waiting.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from aimlhpo.agent.progress import Progress, SlotState, View
from aimlhpo.errors import shorten, show_duration, show_number, show_rate, storage_kind

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

NARROWEST_CELL, WIDEST_CELL = 22, 72  # characters of a slot
LEAST_GAP = 2.0  # seconds between two lines
PERIOD = 0.5  # seconds between two paintings
FAREWELL = 5.0  # seconds that `stop` waits for a terminal that takes nothing (Ctrl-S, a full pipe)


def make_view(config: Config) -> View:
    """The view that fits where standard output goes."""
    console = Console(file=sys.stdout)
    return TerminalView(config, console) if console.is_terminal and not console.is_dumb_terminal else LinesView()


class ThreadedView:
    """A view that paints in a thread of its own; subclasses say how."""

    def __init__(self) -> None:
        self._snapshot = Progress()
        self._lines: deque[str] = deque(maxlen=1000)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aimlhpo-view", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(FAREWELL)

    def update(self, snapshot: Progress) -> None:
        self._snapshot = snapshot

    def log(self, line: str) -> None:
        self._lines.append(line)

    def _run(self) -> None:
        try:
            self._show()
        except (OSError, ValueError):
            return  # nobody reads any more (a closed pipe or terminal): the study goes on unseen

    def _show(self) -> None:
        self.begin()
        while not self._stopping.wait(PERIOD):
            self._paint()
        self._paint()
        self.end(self._snapshot)

    def _paint(self) -> None:
        while self._lines:
            self.paint_line(self._lines.popleft())
        self.paint(self._snapshot)

    def begin(self) -> None:
        """Called once before the first painting."""

    def paint_line(self, line: str) -> None:
        raise NotImplementedError

    def paint(self, snapshot: Progress) -> None:
        raise NotImplementedError

    def end(self, snapshot: Progress) -> None:
        """Called once after the last painting."""


class LinesView(ThreadedView):
    """Writes one line when the number of finished, failed or paused trials changes, at most one per `LEAST_GAP`."""

    def __init__(self, stream: TextIO | None = None, gap: float = LEAST_GAP) -> None:
        super().__init__()
        self._stream = stream or sys.stdout
        self._gap = gap
        self._told: tuple[int, ...] | None = None
        self._told_at = -gap

    def paint_line(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def paint(self, snapshot: Progress) -> None:
        if time.monotonic() - self._told_at >= self._gap:
            self.end(snapshot)

    def end(self, snapshot: Progress) -> None:
        counts = snapshot.complete, snapshot.pruned, snapshot.failed, snapshot.paused
        nothing_known = self._told is None and not sum(counts) and not snapshot.running
        if counts != self._told and not nothing_known:
            self._told, self._told_at = counts, time.monotonic()
            self.paint_line(progress_line(snapshot))


def progress_line(snapshot: Progress) -> str:
    """The state of the study in one line."""
    total = f"/{snapshot.n_trials}" if snapshot.n_trials is not None else ""
    paused = f"{snapshot.paused} paused, " if snapshot.paused else ""
    parts = [
        f"[{show_duration(snapshot.elapsed)}] {snapshot.finished}{total} trials done",
        f"{snapshot.running} running, {paused}{snapshot.pruned} pruned, {snapshot.failed} failed",
    ]
    if snapshot.best is not None:
        parts.append(f"best {show_number(snapshot.best[1])} (trial {snapshot.best[0]})")
    if snapshot.rate:
        parts.append(show_rate(snapshot.rate))
    if snapshot.eta:
        parts.append(f"{show_duration(snapshot.eta)} left")
    return "; ".join(parts)


class TerminalView(ThreadedView):
    """Redraws a dashboard in place; lines worth keeping scroll past above it."""

    def __init__(self, config: Config, console: Console) -> None:
        super().__init__()
        self._title = config.optuna.study_name
        self._storage = storage_kind(config.optuna.storage)
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
        return Dashboard(self._title, self._storage, self._metric, snapshot)


@dataclass(frozen=True)
class Dashboard:
    """One frame: the study, a bar, counts, the best trial, and as many slots as the terminal has room for."""

    title: str
    storage: str
    metric: str
    state: Progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state = self.state
        width = max(1, options.max_width - 1)  # a full last column makes some terminals wrap
        plain = not options.encoding.lower().startswith("utf")
        title = Text.assemble((self.title, "bold"), (f"  {self.storage}  {show_duration(state.elapsed)}", "dim"))
        best = Text("best ", style="dim")
        if state.best is None:
            best.append("-")
        else:
            best.append(f"{self.metric} ")
            best.append(show_number(state.best[1]), style="bold green")
            best.append(f" (trial {state.best[0]})")
        best.append(f"   {show_rate(state.rate)}", style="dim")
        if state.eta:
            best.append(f"   {show_duration(state.eta)} left", style="dim")
        header = [title, progress_bar(state, width, plain), show_counts(state), best]
        room = max(1, options.size.height - len(header) - 2)
        for line in [*header, *show_slots(state.slots, width, room)]:
            line.truncate(width)
            line.no_wrap = True
            yield line


def progress_bar(state: Progress, width: int, plain: bool = False) -> Text:
    """Complete, pruned and running trials as parts of the budget; without a budget, of what there is."""
    total = state.n_trials or max(1, state.finished + state.running)
    label = f" {state.finished}/{state.n_trials}" if state.n_trials else f" {state.finished}"
    length = max(1, min(width, 100) - len(label))
    full, light, rest = ("#", "-", ".") if plain else ("█", "▒", "░")
    text = Text()
    drawn = 0
    done = 0
    for count, sign, style in (
        (state.complete, full, "green"),
        (state.pruned, full, "yellow"),
        (state.running, light, "cyan"),
    ):
        done += count
        end = min(length, done * length // total)
        text.append(sign * (end - drawn), style=style)
        drawn = end
    text.append(rest * (length - drawn), style="dim")
    text.append(label, style="bold")
    return text


def show_counts(state: Progress) -> Text:
    """The number of trials in each state, in the bar's colours."""
    failed = "red" if state.failed else "dim"
    return Text.assemble(
        (f"{state.complete} complete", "green"),
        "  ",
        (f"{state.pruned} pruned", "yellow"),
        "  ",
        (f"{state.running} running", "cyan"),
        "  ",
        *((f"{state.paused} paused", "cyan"), "  ") * bool(state.paused),
        (f"{state.failed} failed", failed),
    )


def show_slots(states: tuple[SlotState, ...], width: int, room: int) -> Iterator[Text]:
    """The slots in at most `room` lines, in as many columns as that takes; what has no place is counted."""
    if all(state.trial is None for state in states):
        return
    most = max(1, (width + 2) // (NARROWEST_CELL + 2))
    columns = min(most, -(-len(states) // room))
    rows = min(room, -(-len(states) // columns))
    cell = min(WIDEST_CELL, (width + 2) // columns - 2)
    hidden = max(0, len(states) - rows * columns)
    if hidden:
        rows -= 1
        hidden = len(states) - rows * columns
    for row in range(rows):
        line = [slot_cell(state, cell) for state in states[row : rows * columns : rows]]
        yield Text("  ").join(line)
    if hidden:
        yield Text(f"... and {hidden} more", style="dim")


def slot_cell(state: SlotState, width: int) -> Text:
    """One slot in exactly `width` characters; a narrow one leaves out the device and the step."""
    wide = width >= NARROWEST_CELL + 14
    place = f"{state.slot:>3} {shorten(state.device, 7)} " if wide else f"{state.slot:>3} "
    if state.trial is None:
        return Text(shorten(place + "idle", width), style="dim")
    trial = shorten(f"trial {state.trial}" if width >= 48 else f"#{state.trial}", 11 if width >= 48 else 5)
    time = show_duration(state.seconds).rjust(6)
    room = max(0, width - len(place) - len(trial) - len(time) - 2)
    middle = shorten(_report(state, room, with_step=wide), room) + " "
    return Text.assemble((place, "dim"), (trial, "bold"), " ", middle, (time, "dim"))


def _report(state: SlotState, room: int, with_step: bool) -> str:
    """The last report with as many digits as there is room for; the step goes before the exponent does."""
    if state.last_report is None:
        return ""
    step, value = state.last_report
    label = f"step {step:<5} " if room >= 24 else f"{step:>3}: "
    for digits in (5, 4, 3):
        text = (label if with_step else "") + f"{value:.{digits}g}"
        if len(text) <= room:
            return text
    return f"{value:.2g}"
