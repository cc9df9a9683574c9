"""How the command line speaks: results on standard output, errors in red on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from typing import Any, TextIO

from aimlhpo.errors import AimlhpoError, ConfigError, Interrupted

_RED, _GREEN, _BOLD, _DIM = "31", "32", "1", "2"


def coloured(text: str, code: str, stream: TextIO | None = None) -> str:
    """The text in a colour where the stream is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def green(text: str) -> str:
    return coloured(text, _GREEN)


def bold(text: str) -> str:
    return coloured(text, _BOLD)


def dim(text: str) -> str:
    return coloured(text, _DIM)


def error(text: str) -> None:
    """An error, without a traceback."""
    print(coloured("error:", _RED, sys.stderr), text, file=sys.stderr)


def failure(problem: AimlhpoError) -> None:
    """An error of aimlhpo's own; several problems each begin on a line of their own."""
    if isinstance(problem, ConfigError) and len(problem.problems) > 1:
        error(f"{len(problem.problems)} problems in the configuration")
        print(problem, file=sys.stderr)
    elif isinstance(problem, Interrupted):
        print(problem, file=sys.stderr)
    else:
        error(str(problem))


def bug() -> None:
    """An exception that nobody foresaw: its traceback, and whose fault it is."""
    traceback.print_exc()
    error("this is a bug in aimlhpo, please report it with the lines above")


def as_json(data: Any) -> None:
    """The data as JSON on standard output; what JSON does not know becomes text, nan and infinities null."""
    print(json.dumps(_finite(data), indent=2, default=str, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def rows(pairs: list[tuple[str, str]]) -> None:
    """Names and values below each other."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {value}")
