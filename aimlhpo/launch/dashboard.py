"""The live picture in a terminal, as a function of the state and of the terminal's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from aimlhpo import readable as shown
from aimlhpo.progress import Progress, SlotState

NARROWEST_CELL = 22
WIDEST_CELL = 72


@dataclass(frozen=True)
class Dashboard:
    """One frame: the study, a bar, counts, the best trial, and as many slots as the terminal has room for."""

    title: str
    storage: str
    metric: str
    state: Progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width - 1)  # a full last column makes some terminals wrap
        plain = not options.encoding.lower().startswith("utf")
        header = [self._headline(), bar(self.state, width, plain), counts(self.state), self._best()]
        room = max(1, options.size.height - len(header) - 2)
        for line in [*header, *slots(self.state.slots, width, room)]:
            line.truncate(width)
            line.no_wrap = True
            yield line

    def _headline(self) -> Text:
        return Text.assemble((self.title, "bold"), (f"  {self.storage}  {shown.duration(self.state.elapsed)}", "dim"))

    def _best(self) -> Text:
        state = self.state
        line = Text("best ", style="dim")
        if state.best is None:
            line.append("-")
        else:
            line.append(f"{self.metric} ")
            line.append(shown.number(state.best[1]), style="bold green")
            line.append(f" (trial {state.best[0]})")
        line.append(f"   {shown.rate(state.rate)}", style="dim")
        if state.eta:
            line.append(f"   {shown.duration(state.eta)} left", style="dim")
        return line


def bar(state: Progress, width: int, plain: bool = False) -> Text:
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


def counts(state: Progress) -> Text:
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


def slots(states: tuple[SlotState, ...], width: int, room: int) -> Iterator[Text]:
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
    place = f"{state.slot:>3} {shown.fit(state.device, 7)} " if wide else f"{state.slot:>3} "
    if state.trial is None:
        return Text(shown.fit(place + "idle", width), style="dim")
    trial = shown.fit(f"trial {state.trial}" if width >= 48 else f"#{state.trial}", 11 if width >= 48 else 5)
    time = shown.duration(state.seconds).rjust(6)
    room = max(0, width - len(place) - len(trial) - len(time) - 2)
    middle = shown.fit(_report(state, room, with_step=wide), room) + " "
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
