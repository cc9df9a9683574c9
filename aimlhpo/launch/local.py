"""The study on this machine: one agent in the foreground, in the main thread of the command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aimlhpo.agent.agent import Agent, Ending
from aimlhpo.agent.progress import View
from aimlhpo.errors import DeviceError, Interrupted, Problem
from aimlhpo.launch.base import Launcher, LaunchPlan, LaunchReport
from aimlhpo.worker.devices import plan_local_slots, plan_slots, visible_gpus

if TYPE_CHECKING:
    from aimlhpo.agent.fork_server import ForkServer
    from aimlhpo.config.schema import Config


class LocalLauncher(Launcher):
    """Runs the study to its end, with a live view."""

    submits = False

    def check(self, config: Config) -> Iterator[Problem]:
        if config.slurm is not None and config.slurm.nodes_per_worker > 1:
            found = f"{config.slurm.nodes_per_worker} nodes for each trial, and a run on this machine has one"
            legal = "1 to try it here; or leave --local out, which submits the study"
            yield Problem("slurm: nodes_per_worker", found, legal)
        try:
            plan_slots(visible_gpus() if config.optuna.gpu else [], cuda=config.optuna.gpu)
        except DeviceError as error:
            yield Problem("optuna: gpu", str(error))

    def plan(self, config: Config, count: int | None = None) -> list[LaunchPlan]:
        return []

    def start(
        self, config: Config, view: View, count: int | None = None, fork_server: ForkServer | None = None
    ) -> LaunchReport:
        run_local(config, view, count, fork_server)
        return LaunchReport()


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
        raise Interrupted(
            f"{ending.cause}: {ending.snapshot.counts.finished} trials are finished, what was running was given back.\n"
            "    Started again with reload: 1 (-r 1 on the command line), it goes on where it ended."
        )
    return ending
