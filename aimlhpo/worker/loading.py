"""The objective of a worker, made once."""

from __future__ import annotations

import traceback

from aimlhpo.base_objective import BaseObjective, load_objective, make_objective
from aimlhpo.command.objective import CommandObjective
from aimlhpo.errors import ObjectiveError
from aimlhpo.protocol import LoadFailed, Setup


def load(setup: Setup, device: str, imported: type[BaseObjective] | None = None) -> BaseObjective | LoadFailed:
    """The objective, made of the class that is `imported` already where one is; or why there is none."""
    study = setup.study
    metric = study.metric[0] if len(study.metric) == 1 else list(study.metric)
    try:
        if setup.command is not None:
            return CommandObjective(setup.command, study, dict(setup.conf), metric)
        kind = imported or load_objective(setup.objective)
        return make_objective(kind, study=study, config=dict(setup.conf), metric=metric, device=device)
    except ObjectiveError as error:
        return LoadFailed(str(error), "")
    except BaseException as error:  # noqa: BLE001 -- told to the agent, which stops the study
        return LoadFailed(f"{setup.objective}: making Objective raised {error!r}", traceback.format_exc())


def import_class(objective: str) -> type[BaseObjective] | LoadFailed:
    """The class in the objective's file, or why there is none."""
    try:
        return load_objective(objective)
    except ObjectiveError as error:
        return LoadFailed(str(error), "")
