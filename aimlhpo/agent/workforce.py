"""How an agent comes by its workers."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aimlhpo.agent.process import WorkerProcess, environment_of
from aimlhpo.agent.template import Template
from aimlhpo.command.spec import command_spec
from aimlhpo.devices import Slot
from aimlhpo.protocol import Setup, StudyInfo

if TYPE_CHECKING:
    from aimlhpo.config import Config


class Workforce:
    """Starts workers; those of several slots are forked of one process, which has imported the objective for all.

    Within the `with` block, that process is there; it starts to import at once.
    """

    def __init__(self, config: Config, agent: str, slots: Sequence[Slot]) -> None:
        self._config, self._agent, self._slots = config, agent, slots
        self._template: Template | None = None

    def __enter__(self) -> Self:
        if len(self._slots) > 1:
            # The first slot's environment: thread numbers are read at import, and slots have equally many GPUs.
            log = self._config.paths.template_log(self._agent)
            self._template = Template(self._config.optuna.objective or "", environment_of(self._slots[0]), log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._template is not None:
            self._template.close()

    def start(self, slot: Slot) -> WorkerProcess:
        """A new worker for the slot; it may be there only when it is heard."""
        log = self._config.paths.worker_log(self._agent, slot.index)
        return WorkerProcess(slot, self._setup(slot), log, self._template)

    def _setup(self, slot: Slot) -> Setup:
        options = self._config.optuna
        position = options.reported_metric
        reported = options.metric[position] if position is not None else None
        info = StudyInfo(options.study_name, tuple(options.direction), tuple(options.metric), reported)
        return Setup(
            options.objective or "", self._config.conf(), slot.device, info, command_spec(self._config), slot.ranks
        )
