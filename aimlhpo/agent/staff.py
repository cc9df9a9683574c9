"""Who works for the desk: the clerk, and beside it the sampling process where sampling may take long."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aimlhpo.agent.clerk import Clerk
from aimlhpo.agent.samplers import Samplers
from aimlhpo.patience import Patience
from aimlhpo.sampling.process import needs_process

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from aimlhpo.config import Config


class Staff:
    """At work from entry to exit; `samplers` is None where the clerk samples."""

    def __init__(self, config: Config, sampler: BaseSampler, patience: Patience) -> None:
        self.clerk = Clerk(patience)
        self.samplers = Samplers(config, str(sampler), patience) if needs_process(sampler) else None
        self._all: list[Clerk | Samplers] = [self.clerk, *([self.samplers] if self.samplers else [])]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for each in self._all:
                stack.enter_context(each)
            self._at_work = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._at_work.__exit__(kind, error, trace)

    def filenos(self) -> list[int]:
        """Where answers are waited for."""
        return [each.fileno() for each in self._all]

    def deliver(self) -> None:
        """Run what follows from the answers that are there. Raises what a job raised."""
        for each in self._all:
            each.deliver()

    def stop_sampling(self) -> None:
        """Wait for no suggestion any more."""
        if self.samplers is not None:
            self.samplers.stop()
