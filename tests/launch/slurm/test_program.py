"""SLURM's own formats."""

from __future__ import annotations

import pytest

from aimlhpo.launch.slurm.program import seconds_of_time_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("30:00", 1800), ("12:00:00", 43200), ("2-12", 216000), ("1-00:30", 88200),
        ("1-00:00:01", 86401), ("UNLIMITED", None), ("INVALID", None), ("", None),
    ],
)  # fmt: skip
def test_times_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert seconds_of_time_limit(text) == seconds
