"""How the command line speaks: results on standard output, errors in red on standard error.

Also what several verbs say in the end: the best trial, where the files are, and what ended the study. Imports nothing
heavy, because mistakes are reported before anything is loaded.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from aimlhpo.errors import AimlhpoError, ConfigError, Interrupted

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.search.stopping import StopReason

_RED, _GREEN, _BOLD, _DIM = "31", "32", "1", "2"


def green(text: str) -> str:
    return _styled(text, _GREEN)


def bold(text: str) -> str:
    return _styled(text, _BOLD)


def dim(text: str) -> str:
    return _styled(text, _DIM)


def _styled(text: str, code: str, stream: TextIO | None = None) -> str:
    """The text in a style where the stream is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def print_error(text: str) -> None:
    """An error, without a traceback."""
    print(_styled("error:", _RED, sys.stderr), text, file=sys.stderr)


def print_failure(error: AimlhpoError) -> None:
    """An error of aimlhpo's own; several problems each begin on a line of their own."""
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        print_error(f"{len(error.problems)} problems in the configuration")
        print(error, file=sys.stderr)
    elif isinstance(error, Interrupted):
        print(error, file=sys.stderr)
    else:
        print_error(str(error))


def print_json(data: Any) -> None:
    """The data as JSON on standard output; what JSON does not know becomes text, nan and infinities null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(finite(data), indent=2, default=str, allow_nan=False))


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Names and values below each other."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")


def print_notes(notes: Iterable[str]) -> None:
    """What is right, but could be better or is probably mistyped: on standard error, one line each."""
    for note in notes:
        print_note(note)


def print_note(note: str) -> None:
    """One of them."""
    print(f"note: {note}", file=sys.stderr)


def print_nothing_to_do(config: Config, ended: StopReason) -> None:
    """Why a study that is started again runs nothing, and what would make it go on."""
    name, budget = config.optuna.study_name, config.optuna.n_trials
    if ended.rule == "n_trials":
        print(f"nothing to do: study {name} has finished its {budget} trials (n_trials) before")
        return
    way = f"to go on, set another {ended.rule}, or leave it out"
    if ended.is_failure:
        way = "when the objective is mended, start it again with reload: 1"
    elif ended.rule == "timeout" and config.optuna.timeout_scope == "submission":
        way = "to go on, start it again with reload: 1"
    print(f"nothing to do: study {name} was ended by {ended}\n    {way}")
