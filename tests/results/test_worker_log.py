"""A worker's log keeps its beginning and its newest lines, however much an objective and its children print."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from aimlhpo.cli.main import main
from aimlhpo.results.worker_log import WorkerLog
from tests.project import Project
from tests.waiting import wait_until

MEGABYTE = 1_000_000
PRINTS = """
import os, time
first = 0
while first < 1 << 20 or os.fstat(1).st_size > 900_000:  # the last lines come after the last cut
    os.write(1, b"".join(b"%07d\\n" % number for number in range(first, first + (1 << 10))))
    first += 1 << 10
    time.sleep(0.001)
os.write(1, b"the end\\n")
"""
PRINTS_MUCH = """
    import os, signal, subprocess, sys, time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            print(f"trial {trial.number} says hello")
            if trial.number == 1:
                subprocess.run([sys.executable, "-c", "for _ in range(400): print('x' * 99_999)"], check=True)
                for _ in range(400):
                    os.write(1, b"y" * 99_999 + b"\\n")
                while os.fstat(1).st_size > 10_000_000:  # until the agent has trimmed the log
                    time.sleep(0.01)
                os.write(2, b"the newest line")
                os.kill(os.getpid(), signal.SIGKILL)
            if trial.number == 2:
                raise ValueError("no luck")
            return {"val_loss": 1.0}
"""


def test_positions_stay_right_when_the_log_is_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    log = WorkerLog(path, 1)
    begins: dict[int, int] = {}
    for number in range(300_000):
        if number % 100_000 == 0:
            log.trim()
        if number % 1000 == 0:
            begins[number] = log.end
            with open(path, "ab") as output:
                output.write(b"".join(b"line %d\n" % line for line in range(number, number + 1000)))
    log.trim()
    text = path.read_bytes()
    (dropped,) = re.findall(rb"\n==== aimlhpo has dropped (\d+) bytes here", text)
    numbers = [int(number) for number in re.findall(rb"^line (\d+)$", text, re.MULTILINE)]
    (gap,) = ((before, after) for before, after in pairwise(numbers) if after != before + 1)
    assert int(dropped) == sum(len(f"line {number}\n") for number in range(gap[0] + 1, gap[1]))
    for reader in (log, WorkerLog(path, 1)):
        for number, position in begins.items():
            offset = reader.offset(position)
            assert (offset is None) == (gap[0] < number < gap[1])
            assert offset is None or text[offset:].startswith(b"line %d\n" % number)
        assert reader.last_lines(begins[299_000]).splitlines()[-1] == "line 299999"


def test_lines_that_come_while_the_log_is_trimmed_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    log = WorkerLog(path, 1)
    with open(path, "ab") as output, subprocess.Popen([sys.executable, "-c", PRINTS], stdout=output) as writer:
        wait_until(lambda: log.trim() or writer.poll() is not None, "the writer's end")
    log.trim()
    text = path.read_text()
    assert len(text) <= MEGABYTE
    *lines, last = text.splitlines()
    assert last == "the end"
    numbers = [int(line) for line in lines if line and not line.startswith("====")]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    assert numbers[-1] % (1 << 10) == (1 << 10) - 1
    missing, *later = (after - before - 1 for before, after in pairwise(numbers) if after != before + 1)
    assert missing > 900_000
    assert sum(later) < 50_000, "more is missing than was written in the instants of the cuts"


def test_objective_that_prints_80_megabytes_and_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, PRINTS_MUCH, n_trials=2)
    settings = yaml.safe_load(project.hyperparameters.read_text())
    settings["log"]["max_mb_per_worker"] = 10
    project.hyperparameters.write_text(yaml.safe_dump(settings))
    project.run()
    assert project.states() == {"COMPLETE": 2, "FAIL": 2}
    (path,) = (project.save_path / "logs").glob("worker-*")
    text = path.read_text()
    assert len(text) <= 10 * MEGABYTE
    assert "trial 0 says hello" in text[:1000]
    assert len(re.findall("\n==== aimlhpo has dropped 7\\d{7} bytes here", text)) == 1
    killed, failed = project.records()[1:3]
    assert killed["cause"] == "killed by signal 9"
    assert killed["error"].endswith("the newest line")
    assert main(["status", str(project.save_path), "--failed"]) == 0
    place = re.search(r"trial 2: .*\n.* from byte (\d+)\n", capsys.readouterr().out)
    assert place is not None
    assert "trial 2 says hello" in text[int(place[1]) :][:200]
    assert failed["log_offset"] > 80 * MEGABYTE
