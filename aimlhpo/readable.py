"""Numbers and times as people read them, for the live view and the status."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration(seconds: float | None) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d04h`; `-` when it is not known."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "-"
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def number(value: float) -> str:
    """Five significant digits, without an exponent where that is shorter."""
    return f"{value:.5g}"


def rate(per_second: float | None) -> str:
    """Trials per second, minute, hour or day: the first unit in which it is at least one."""
    if not per_second:
        return "-"
    for unit, length in (("s", 1), ("min", _MINUTE), ("h", _HOUR)):
        if per_second * length >= 1:
            return f"{per_second * length:.3g}/{unit}"
    return f"{per_second * _DAY:.3g}/day"


def fit(text: str, width: int) -> str:
    """The text in exactly `width` characters, cut with `~` where it is longer."""
    return text.ljust(width) if len(text) <= width else text[: max(0, width - 1)] + "~"[:width]


def storage_kind(url: str) -> str:
    """What kind of storage a URL names, without the URL."""
    scheme = url.partition(":")[0].partition("+")[0]
    kinds = {
        "sqlite": "SQLite",
        "journal": "journal file",
        "mysql": "MySQL",
        "redis": "Redis",
        "rediss": "Redis",
    }
    return "PostgreSQL" if scheme.startswith("postgres") else kinds.get(scheme, scheme)
