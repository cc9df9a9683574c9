"""Times and numbers as people read them."""

from __future__ import annotations

import pytest

from aimlhpo import errors


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (7500, "2h05m"),
        (273600, "3d04h"),
        (-1, "0s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert errors.show_duration(seconds) == text


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
def test_unknown_durations_are_a_dash(unknown: float | None) -> None:
    assert errors.show_duration(unknown) == "-"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(None, "-"), (0, "-"), (12.34, "12.3/s"), (0.2, "12/min"), (0.001, "3.6/h"), (1e-4, "8.64/day")],
)
def test_rates(per_second: float | None, text: str) -> None:
    assert errors.show_rate(per_second) == text


def test_fit_pads_and_cuts() -> None:
    assert errors.shorten("abc", 5) == "abc  "
    assert errors.shorten("abcdef", 4) == "abc~"
    assert errors.shorten("abc", 0) == ""


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:////x.db", "SQLite"),
        ("postgresql+psycopg://h/d", "PostgreSQL"),
        ("journal:///x", "journal file"),
    ],
)
def test_storage_kinds(url: str, kind: str) -> None:
    assert errors.storage_kind(url) == kind
