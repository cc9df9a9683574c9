"""Running SLURM's own programs, each bounded in time, with SLURM's own words kept.
The signal that SLURM sends before the walltime, as `--signal` writes it: `[RB:]NAME_OR_NUMBER[@SECONDS]`.
SLURM's way to write a length of time.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from aimlhpo.errors import SubmissionError

PROGRAM_TIMEOUT = 30.0
"""Seconds to wait for an answer of squeue, scontrol and scancel."""

_UNREACHABLE = re.compile(
    "unable to contact|connection refused|timed out|zero bytes|standby mode|configuration source|communication",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProgramOutput:
    """What a program said; `code` is None where it could not be run or said nothing in time."""

    code: int | None
    out: str
    words: str

    @property
    def ok(self) -> bool:
        return self.code == 0


def run_program(*command: str, timeout: float = PROGRAM_TIMEOUT) -> ProgramOutput:
    """Run one of SLURM's programs; never raises for what it answers."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        return ProgramOutput(None, "", f"{command[0]} is not installed on this machine")
    except OSError as error:
        return ProgramOutput(None, "", f"{command[0]} cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired:
        return ProgramOutput(None, "", f"{command[0]} got no answer from SLURM in {timeout:.0f} s")
    return ProgramOutput(done.returncode, done.stdout, done.stderr.strip())


def is_unreachable(answer: ProgramOutput) -> bool:
    """Whether SLURM was not there to answer, as against saying no."""
    return answer.code is None or bool(_UNREACHABLE.search(answer.words))


def require_program(program: str) -> None:
    """Raise SubmissionError where `program` is not installed."""
    if shutil.which(program) is None:
        raise SubmissionError(
            f"{program} is not on PATH: this machine does not belong to a SLURM cluster.\n"
            "    Submit from a login node, or run here with --local; --dry-run shows the script anywhere."
        )


def on_cluster(cluster: str | None) -> Sequence[str]:
    """The option that sends a question to another cluster than this machine's own."""
    return () if cluster is None else (f"--clusters={cluster}",)


def _environment() -> dict[str, str]:
    """Times as seconds since 1970, and no format of the user's own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}
    return {**mine, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


DEFAULT_SIGNAL = signal.SIGUSR1
_OPTION = re.compile(r"(?:[RB]+:)?(?:SIG)?([A-Za-z0-9]+)(?:@\d+)?", re.IGNORECASE)
_NOT_FREE = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD})


def parse_signal_option(option: str | None) -> signal.Signals | None:
    """The signal that the option names, or None where it names none that can announce the walltime."""
    if option is None:
        return DEFAULT_SIGNAL
    match = _OPTION.fullmatch(option.strip())
    try:
        found = _named(match[1]) if match else None
    except (KeyError, ValueError):
        return None
    return None if found in _NOT_FREE else found


def _named(text: str) -> signal.Signals:
    return signal.Signals(int(text)) if text.isdigit() else signal.Signals[f"SIG{text.upper()}"]


_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})$")
_UNITS = {
    (False, 1): (60,),
    (False, 2): (60, 1),
    (False, 3): (3600, 60, 1),
    (True, 1): (3600,),
    (True, 2): (3600, 60),
    (True, 3): (3600, 60, 1),
}


def seconds_of_time_limit(text: str) -> int | None:
    """`90`, `30:00`, `12:00:00`, `2-12`, `1-00:30`... in seconds; None for UNLIMITED and for what is no time.

    A number alone is minutes, as SLURM reads it.
    """
    match = _CLOCK.match(text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    units = _UNITS[match["days"] is not None, len(parts)]
    return int(match["days"] or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=True))
