"""What a study lies on is away for a while: nobody dies, no trial fails, and it goes on without help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import outages
from tests.servers import PostgreSQL

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_full_disk(tmp_path: Path, kind: str) -> None:
    verdict = outages.full_disk(tmp_path, kind, times=1, seconds=3)
    assert verdict.clean, verdict


def test_stopped_database(tmp_path: Path, own_postgresql: PostgreSQL) -> None:
    verdict = outages.stopped_database(tmp_path, own_postgresql, times=1, seconds=4)
    assert verdict.clean, verdict
    assert verdict.note == "0 failed, no worker died"


def test_cut_journal(tmp_path: Path) -> None:
    verdict = outages.cut_journal(tmp_path, times=2)
    assert verdict.clean, verdict
