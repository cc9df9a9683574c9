"""The signal that SLURM sends before the walltime, as `--signal` writes it: `[RB:]NAME_OR_NUMBER[@SECONDS]`."""

from __future__ import annotations

import re
import signal

DEFAULT = signal.SIGUSR1
_OPTION = re.compile(r"(?:[RB]+:)?(?:SIG)?([A-Za-z0-9]+)(?:@\d+)?", re.IGNORECASE)
_NOT_FREE = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD})


def parse(option: str | None) -> signal.Signals | None:
    """The signal that the option names, or None where it names none that can announce the walltime."""
    if option is None:
        return DEFAULT
    match = _OPTION.fullmatch(option.strip())
    try:
        found = _named(match[1]) if match else None
    except (KeyError, ValueError):
        return None
    return None if found in _NOT_FREE else found


def _named(text: str) -> signal.Signals:
    return signal.Signals(int(text)) if text.isdigit() else signal.Signals[f"SIG{text.upper()}"]
