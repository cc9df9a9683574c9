"""The study on this machine: one agent in the foreground, with a live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.agent.agent import Agent, Ending
from aimlhpo.agent.progress import View
from aimlhpo.errors import Interrupted
from aimlhpo.worker.devices import plan_local_slots

if TYPE_CHECKING:
    from aimlhpo.agent.fork_server import ForkServer
    from aimlhpo.config.schema import Config


def run_local(config: Config, view: View, workers: int | None = None, fork_server: ForkServer | None = None) -> Ending:
    """Run the study with `workers` workers, forked of `fork_server` where it has loaded the objective already.

    Raises DeviceError, ObjectiveError, StudyFailed, StorageError, and Interrupted after Ctrl-C.
    """
    slots = plan_local_slots(config, workers)
    view.start()
    try:
        ending = Agent(config, slots, view, fork_server=fork_server).run()
    finally:
        view.stop()
    if ending.cause is not None:
        raise Interrupted(_stopped(ending))
    return ending


def _stopped(ending: Ending) -> str:
    return (
        f"{ending.cause}: {ending.snapshot.counts.finished} trials are finished, what was running was given back.\n"
        "    The same command with reload: 1 (or -r 1) goes on where it ended."
    )
