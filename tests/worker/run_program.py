"""A process that stands for a worker: python -m tests.worker.run_program FOLDER SCRIPT KILL_AFTER runs the script."""

from __future__ import annotations

import os
import signal
import sys

from aimlhpo.objective.messages import CommandSpec
from aimlhpo.processes import adopt_orphans
from aimlhpo.worker.command import Program, outlive_sigterm
from aimlhpo.worker.process_guard import start_guard


def main(folder: str, script: str, kill_after: str) -> None:
    """The script asks to be stopped with {"stop": 1}, and for a SIGTERM to the group, as agents send, with 2."""
    guarded = start_guard()
    adopt_orphans()
    spec = CommandSpec((), folder, folder, kill_after=float(kill_after))
    environment = {**spec.environment(), **guarded}
    with outlive_sigterm() as came, Program(spec, [sys.executable, "-c", script], environment, came) as program:
        for record in program.records():
            if record == {"stop": 1}:
                program.stop()
            elif record == {"stop": 2}:
                os.killpg(0, signal.SIGTERM)
    print("code", program.code(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
