"""`make slurm-demo` shows what it promises, and takes its cluster down."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import processes_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.slurm
def test_the_demo_shows_jobs_logs_and_results(tmp_path: Path) -> None:
    study = tmp_path / "study"
    demo = [str(ROOT / "scripts" / "slurm-demo"), sys.executable, str(study), "6"]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(re.findall(r"1_\d +digits +RUNNING gpu\d", done.stdout))) == 4
    assert "6 of 6 done" in done.stdout
    assert (study / "best.yml").read_text() in done.stdout
    assert len(list((study / "logs").glob("job-*"))) == 4
    with (study / "results.csv").open() as table:
        assert len(list(csv.DictReader(table))) == 6
    directory = re.search(r"idle in (\S+)", done.stdout)
    assert directory is not None
    assert not Path(directory[1]).exists()
    assert processes_of(Path(directory[1])) == []
