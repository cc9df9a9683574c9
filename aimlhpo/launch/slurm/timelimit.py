"""SLURM's way to write a length of time."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})$")
_UNITS = {
    (False, 1): (60,),
    (False, 2): (60, 1),
    (False, 3): (3600, 60, 1),
    (True, 1): (3600,),
    (True, 2): (3600, 60),
    (True, 3): (3600, 60, 1),
}


def seconds(text: str) -> int | None:
    """`90`, `30:00`, `12:00:00`, `2-12`, `1-00:30`... in seconds; None for UNLIMITED and for what is no time.

    A number alone is minutes, as SLURM reads it.
    """
    match = _CLOCK.match(text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    units = _UNITS[match["days"] is not None, len(parts)]
    return int(match["days"] or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=True))
