"""What a user sees while trials run: in a terminal of any size, and in a log file."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap

import pytest
from rich.console import Console

from aimlhpo.agent.progress import Progress, SlotState
from aimlhpo.cli.live_view import Dashboard, LinesView, progress_line


def progress(slots: int = 2, *, idle: bool = False, n_trials: int | None = 100) -> Progress:
    states = tuple(SlotState(i, f"cuda:{i}", None if idle else 40 + i, 75.0, (i, -1.2345678e-5)) for i in range(slots))
    return Progress(
        complete=30,
        pruned=5,
        failed=2,
        running=slots,
        n_trials=n_trials,
        best=(17, 0.0123456),
        slots=states,
        elapsed=133.0,
        rate=0.2,
        eta=325.0,
    )


def drawn(state: Progress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(Dashboard("digits", "SQLite", "val_loss", state))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip("\n").split("\n")


def test_the_picture_tells_counts_best_rate_and_each_trial() -> None:
    text = "\n".join(drawn(progress()))
    for part in ("digits", "SQLite", "2m13s", "35/100", "30 complete", "5 pruned", "2 running", "2 failed"):
        assert part in text
    assert "val_loss 0.012346 (trial 17)" in text
    assert "12/min" in text
    assert "5m25s left" in text
    assert "trial 41" in text
    assert "-1.2346e-05" in text
    assert "1m15s" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (40, 10), (200, 60), (10, 3)])
@pytest.mark.parametrize("slots", [0, 1, 32, 64, 500])
def test_the_picture_fits_every_terminal(slots: int, width: int, height: int) -> None:
    lines = drawn(progress(slots), width, height)
    assert max(len(line) for line in lines) <= width
    assert len(lines) <= max(height, 6)


def test_32_workers_are_all_seen_in_80x24() -> None:
    text = "\n".join(drawn(progress(32)))
    assert all(f"#{40 + slot} " in text for slot in range(32))
    assert "more" not in text


def test_slots_that_have_no_room_are_counted() -> None:
    assert any("more" in line for line in drawn(progress(200)))


def test_a_study_without_budget_and_without_best_draws() -> None:
    text = "\n".join(drawn(Progress(running=1, slots=(SlotState(0, "cpu"),))))
    assert "best -" in text
    assert "None" not in text


def test_idle_slots_are_not_listed_at_the_end() -> None:
    assert len(drawn(progress(8, idle=True))) == 4


def test_lines_are_written_when_counts_change_only() -> None:
    stream = io.StringIO()
    view = LinesView(stream, gap=0.0)
    for _ in range(3):
        view.paint(progress())
    view.paint(Progress(complete=31, pruned=5, failed=2, n_trials=100))
    assert len(stream.getvalue().splitlines()) == 2


def test_the_last_state_is_told_even_within_the_gap() -> None:
    stream = io.StringIO()
    view = LinesView(stream, gap=3600.0)
    view.start()
    view.update(Progress(complete=1, n_trials=2))
    view.log("trial 3 failed: nan")
    view.update(Progress(complete=2, n_trials=2))
    view.stop()
    assert "trial 3 failed: nan" in stream.getvalue()
    assert "2/2 trials done" in stream.getvalue().splitlines()[-1]


def test_the_summary_names_what_is_known() -> None:
    assert progress_line(Progress(complete=3, running=2)) == "[0s] 3 trials done; 2 running, 0 pruned, 0 failed"
    assert "best 0.012346 (trial 17)" in progress_line(progress())


def test_a_closed_pipe_does_not_stop_the_study() -> None:
    stream = io.StringIO()
    view = LinesView(stream, gap=0.0)
    view.start()
    stream.close()
    view.update(progress())
    view.stop()


SCRIPT = textwrap.dedent(
    """
    import types
    from aimlhpo.cli.live_view import make_view
    from aimlhpo.agent.progress import Progress, SlotState
    optuna = types.SimpleNamespace(study_name="digits", storage="journal:///x", metric=["val_loss"])
    view = make_view(types.SimpleNamespace(optuna=optuna))
    view.start()
    view.update(Progress(complete=1, running=2, n_trials=4, best=(0, 0.5), slots=(SlotState(0, "cpu", 3, 1.0, None),)))
    view.log("trial 2 failed: [nan]")
    view.update(Progress(complete=4, n_trials=4, best=(0, 0.5), slots=(SlotState(0, "cpu"),)))
    view.stop()
    print("AFTER")
    """
)


def in_terminal(script: str) -> str:
    """Run the script with a terminal of 80x24 and return all that it sent there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=follower,
        stderr=follower,
        env={**environment, "TERM": "xterm-256color"},
    )
    os.close(follower)
    received = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not chunk:
            break
        received += chunk
    os.close(leader)
    assert process.wait() == 0
    return received.decode()


def test_a_terminal_gets_the_picture_and_keeps_the_last_one() -> None:
    received = in_terminal(SCRIPT)
    assert "trial 2 failed: [nan]" in received
    last_frame, _, after = received.rpartition("4/4")
    assert "journal file" in last_frame
    assert "AFTER" in after
    assert "4 complete" in after


def test_a_pipe_gets_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "4/4 trials done" in done.stdout
    assert done.stdout.endswith("AFTER\n")
