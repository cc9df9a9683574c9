"""`python -m tests.faults.agent SAVE_PATH SLOTS [TIMES]`: agents of a study, without SLURM around them.

With TIMES, that many agents begin at the same instant, each making or loading the study first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aimlhpo.agent import Agent
from aimlhpo.config import Config, load_snapshot
from aimlhpo.devices import Slot
from aimlhpo.launch.lines import LinesView
from aimlhpo.paths import StudyPaths
from aimlhpo.storage import create_or_load_study


def run(config: Config, slots: int) -> None:
    view = LinesView(sys.stderr)
    view.start()
    try:
        Agent(config, [Slot(index) for index in range(slots)], view).run()
    finally:
        view.stop()


def run_at_once(config: Config, slots: int, times: int) -> int:
    """How many of the agents ended badly."""
    ready, go = os.pipe(), os.pipe()
    children = [_fork(config, slots, ready, go) for _ in range(times)]
    for _ in children:
        os.read(ready[0], 1)
    os.write(go[1], b"." * times)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(config: Config, slots: int, ready: tuple[int, int], go: tuple[int, int]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        create_or_load_study(config)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        run(config, slots)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    study = load_snapshot(StudyPaths(Path(sys.argv[1]), ""))
    if len(sys.argv) > 3:
        sys.exit(run_at_once(study, int(sys.argv[2]), int(sys.argv[3])))
    run(study, int(sys.argv[2]))
