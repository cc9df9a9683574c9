"""`python -m tests.faults.agent SAVE_PATH SLOTS [TIMES]`: agents of a study, without SLURM around them.

With TIMES, that many agents begin at the same instant, each making or loading the study first.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from aimlhpo.agent.agent import Agent
from aimlhpo.cli.live_view import LinesView
from aimlhpo.config.load import load_snapshot
from aimlhpo.config.paths import StudyPaths
from aimlhpo.config.schema import Config
from aimlhpo.search.warm_start import begin_study
from aimlhpo.worker.devices import Slot
from tests.faults import at_once


def run(config: Config, slots: int) -> None:
    view = LinesView(sys.stderr)
    view.start()
    try:
        Agent(config, [Slot(index) for index in range(slots)], view).run()
    finally:
        view.stop()


if __name__ == "__main__":
    study = load_snapshot(StudyPaths(Path(sys.argv[1]), ""))
    if len(sys.argv) > 3:
        begin = partial(begin_study, study), partial(run, study, int(sys.argv[2]))
        sys.exit(at_once.run(int(sys.argv[3]), *begin))
    run(study, int(sys.argv[2]))
