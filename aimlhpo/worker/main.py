"""A worker's life: load the objective once, then run the trials that the agent sends."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from aimlhpo.base_objective import BaseObjective
from aimlhpo.protocol import Finished, LoadFailed, Ready, Setup, Stop
from aimlhpo.worker.attempt import attempt
from aimlhpo.worker.channel import PipeChannel
from aimlhpo.worker.loading import load
from aimlhpo.worker.output import Output
from aimlhpo.worker.provenance import provenance
from aimlhpo.worker.team import Team


def run(connection: Connection, imported: type[BaseObjective] | None = None) -> None:
    """Serve the agent at the other end until it says stop; `imported` is the objective's class where it is loaded."""
    output = Output()
    setup: Setup = connection.recv()
    channel = PipeChannel(connection)
    team = Team(setup, channel)
    objective = load(setup, setup.device, imported)
    if isinstance(objective, LoadFailed):
        channel.send(objective)
        return
    channel.send(Ready(provenance(setup.command.source if setup.command else setup.objective)))
    channel.start()
    worker = os.getpid()
    while not isinstance(assignment := channel.assignments.get(), Stop):
        output.restore()
        team.begin(assignment)
        outcome = attempt(objective, assignment, team.channel, setup.study.metric)
        if os.getpid() != worker:
            os._exit(0)  # the objective forked, and its child came back from it: the worker's own result counts
        team.settle()
        channel.send(Finished(assignment.number, outcome))
