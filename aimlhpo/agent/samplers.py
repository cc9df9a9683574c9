"""The agent's sampling process, asked from a thread of its own, so that neither seats nor results wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aimlhpo.agent.clerk import Clerk
from aimlhpo.ledger import Claim
from aimlhpo.patience import Patience
from aimlhpo.sampling.messages import Suggestion
from aimlhpo.sampling.process import SamplingProcess

if TYPE_CHECKING:
    from aimlhpo.config import Config


class Samplers:
    """Answers as a clerk does: what follows runs in the thread that calls `deliver`."""

    def __init__(self, config: Config, sampler: str, patience: Patience) -> None:
        self._process, self._clerk = SamplingProcess(config, sampler), Clerk(patience)

    def __enter__(self) -> Self:
        self._process.start()
        self._clerk.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()
        self._clerk.__exit__(kind, error, trace)

    def ask(self, claims: Sequence[Claim], then: Callable[[list[Suggestion] | None], None]) -> None:
        """Suggest parameters; `then` gets None where the process was stopped instead."""
        trials = [(claim.trial_id, claim.number) for claim in claims]
        self._clerk.submit(partial(self._process.sample, trials), then)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._process.close()

    def fileno(self) -> int:
        return self._clerk.fileno()

    def deliver(self) -> None:
        self._clerk.deliver()

    @property
    def idle(self) -> bool:
        return self._clerk.idle
