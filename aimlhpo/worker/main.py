"""A worker's life: load the objective once, then run the trials that the agent sends."""

from __future__ import annotations

import traceback
from multiprocessing.connection import Connection

from aimlhpo.base_objective import BaseObjective, load_objective, make_objective
from aimlhpo.command.objective import CommandObjective
from aimlhpo.errors import ObjectiveError
from aimlhpo.protocol import Finished, LoadFailed, Ready, Setup, Stop
from aimlhpo.worker.attempt import attempt
from aimlhpo.worker.channel import PipeChannel
from aimlhpo.worker.provenance import provenance


def run(connection: Connection) -> None:
    """Serve the agent at the other end until it says stop."""
    setup: Setup = connection.recv()
    channel = PipeChannel(connection)
    objective = _load(setup, channel)
    if objective is None:
        return
    channel.send(Ready(provenance(setup.command.source if setup.command else setup.objective)))
    channel.start()
    while not isinstance(assignment := channel.assignments.get(), Stop):
        channel.send(Finished(assignment.number, attempt(objective, assignment, channel, setup.study.metric)))


def _load(setup: Setup, channel: PipeChannel) -> BaseObjective | None:
    study = setup.study
    metric = study.metric[0] if len(study.metric) == 1 else list(study.metric)
    try:
        if setup.command is not None:
            return CommandObjective(setup.command, study, dict(setup.conf), metric)
        kind = load_objective(setup.objective)
        return make_objective(kind, study=study, config=dict(setup.conf), metric=metric, device=setup.device)
    except ObjectiveError as error:
        channel.send(LoadFailed(str(error), ""))
    except BaseException as error:  # noqa: BLE001 -- told to the agent, which stops the study
        channel.send(LoadFailed(f"{setup.objective}: making Objective raised {error!r}", traceback.format_exc()))
    return None
