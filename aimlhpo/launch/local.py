"""The study on this machine: one agent in the foreground, with a live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.agent.agent import Agent, Ending
from aimlhpo.agent.progress import View
from aimlhpo.errors import Interrupted
from aimlhpo.worker.devices import plan_slots, visible_gpus

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


def run_local(config: Config, view: View, workers: int | None = None) -> Ending:
    """Run the study with `workers` workers; None: one for each GPU, or a single one on the CPU.

    Raises DeviceError, ObjectiveError, StudyFailed, StorageError, and Interrupted after Ctrl-C.
    """
    gpus = visible_gpus() if config.optuna.gpu else []
    ranks = config.slurm.gpus_per_worker if config.slurm else 1
    slots = plan_slots(gpus, cuda=config.optuna.gpu, workers=workers, gpus_per_worker=ranks)
    view.start()
    try:
        ending = Agent(config, slots, view).run()
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
