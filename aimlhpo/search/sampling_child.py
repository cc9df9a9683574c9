"""The process that samples: it reads the study by itself and writes nothing, so it can be killed at any time.
`python -m aimlhpo.search.sampling_child FD PARENT`: started by an agent, never by hand.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from datetime import datetime
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.processes import die_with_parent
from aimlhpo.search.bounded import sampler_of
from aimlhpo.search.building import make_pruner
from aimlhpo.search.sampling import Sampling
from aimlhpo.search.sampling_process import SamplingAnswer, SamplingRefusal, SamplingRequest, Suggestion
from aimlhpo.storage.base import Backend, OpenTrial, Operation, Overview, Place, SetParam
from aimlhpo.storage.owned import OwnedStorage, backend_of
from aimlhpo.storage.retry import first_line, is_outage
from aimlhpo.storage.study import STUDY_ATTR, load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


class ReadOnly:
    """A backend that reads, and keeps to itself what it is told to write."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def overview(self, study_id: int) -> Overview:
        return self._inner.overview(study_id)

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        return self._inner.latest_ends(study_id, most)

    def open_trial(self, trial_id: int) -> OpenTrial:
        return self._inner.open_trial(trial_id)

    def introduce(self, operation: SetParam) -> None:
        """Whether the study takes it, the agent's own storage finds out."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Nothing is written from here."""

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        return {}


class WithSuggested(OwnedStorage):
    """Shows the trials that were sampled here with their parameters, also before the agent has written these."""

    def set_trial_param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        self.write(SetParam(trial_id, name, internal, distribution))

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [self._suggested(trial) for trial in trials]

    def _suggested(self, trial: FrozenTrial) -> FrozenTrial:
        known = self.held(trial._trial_id)
        if known is None or trial.state != TrialState.RUNNING or trial.params:
            return trial
        return known


class SamplingChild:
    """Answers one request after another; the study is loaded with the first, which may be an empty one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._sampling: Sampling | None = None

    def answer(self, request: SamplingRequest) -> SamplingAnswer | SamplingRefusal:
        try:
            sampling = self._sampling = self._sampling or self._load()
            return SamplingAnswer([self._suggest(sampling, *trial) for trial in request.trials])
        except Exception as error:  # noqa: BLE001 -- the agent says it, or tries again
            return SamplingRefusal(first_line(error) if is_outage(error) else str(error), is_outage(error))

    def _load(self) -> Sampling:
        study = load_study(self._config, pruner=make_pruner(self._config.optuna.pruner))
        study.sampler = sampler_of(self._config, study.user_attrs[STUDY_ATTR]["seed"])
        self._storage = WithSuggested(study._storage, ReadOnly(backend_of(study._storage)))
        study._storage = self._storage
        study.get_trials(deepcopy=False)  # the storage keeps them
        gc.freeze()
        return Sampling(self._config, study)

    def _suggest(self, sampling: Sampling, trial_id: int, number: int) -> Suggestion:
        self._storage.let_go(trial_id)
        self._storage.hold(trial_id)
        with self._storage.gather() as operations:
            values = sampling.sample(trial_id, number)
        return Suggestion(number, values, operations)


def run(connection: Connection) -> None:
    """Serve the agent at the other end until it hangs up."""
    try:
        child = SamplingChild(connection.recv())
        child.answer(
            SamplingRequest(())
        )  # loads the study while the workers start; what is wrong with it, the next one says
        while True:
            connection.send(child.answer(connection.recv()))
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    run(Connection(int(sys.argv[1])))
