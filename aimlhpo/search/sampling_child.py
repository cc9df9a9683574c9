"""The process that samples: `python -m aimlhpo.search.sampling_child FD PARENT`, started by an agent, never by hand.

It reads the study by itself and writes nothing: what the sampler suggests is gathered and sent back to the agent, which
writes it. FD is the number of the inherited connection to the agent, PARENT the agent's process id; the process ends
with the agent. The messages are defined in `sampling`, as this module runs under the name `__main__`.
"""

from __future__ import annotations

import gc
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.processes import die_with_parent
from aimlhpo.search.bounded import sampler_of
from aimlhpo.search.building import make_pruner
from aimlhpo.search.sampling import Sampling, SamplingAnswer, SamplingRefusal, SamplingRequest, Suggestion
from aimlhpo.storage.base import SetParam
from aimlhpo.storage.owned import OwnedStorage, backend_of
from aimlhpo.storage.retry import first_line, is_outage
from aimlhpo.storage.study import STUDY_ATTR, load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


class SuggestedStorage(OwnedStorage):
    """Shows the trials that were sampled here with their parameters, also before the agent has written these."""

    def set_trial_param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        """Remember the parameter; whether the study accepts it, the agent finds out when it writes it."""
        self.write(SetParam(trial_id, name, internal, distribution))

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = list(self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states))
        for place, trial in enumerate(trials):
            suggested = self.held(trial._trial_id)
            if suggested is not None and trial.state == TrialState.RUNNING and not trial.params:
                trials[place] = suggested
        return trials


class SamplingChild:
    """Answers one request after another; the study is loaded with the first one, which may be an empty one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._sampling: Sampling | None = None

    def answer(self, request: SamplingRequest) -> SamplingAnswer | SamplingRefusal:
        try:
            if self._sampling is None:
                self._sampling = self._load()
            suggestions = []
            for trial_id, number in request.trials:
                self._storage.let_go(trial_id)
                self._storage.hold(trial_id)
                with self._storage.gather() as operations:  # nothing is written here
                    values = self._sampling.sample(trial_id, number)
                suggestions.append(Suggestion(number, values, operations))
            return SamplingAnswer(suggestions)
        except Exception as error:  # noqa: BLE001 -- the agent reports it, or asks again
            return SamplingRefusal(first_line(error) if is_outage(error) else str(error), is_outage(error))

    def _load(self) -> Sampling:
        study = load_study(self._config, pruner=make_pruner(self._config.optuna.pruner))
        study.sampler = sampler_of(self._config, study.user_attrs[STUDY_ATTR]["seed"])
        study._storage = self._storage = SuggestedStorage(study._storage, backend_of(study._storage))
        study.get_trials(deepcopy=False)  # the storage keeps what it has read
        gc.freeze()
        return Sampling(self._config, study)


def serve(connection: Connection) -> None:
    """Answer the agent at the other end until it hangs up. Its first message is the configuration."""
    try:
        child = SamplingChild(connection.recv())
        # Load the study while the workers start. If this fails, the answer to the next request says so.
        child.answer(SamplingRequest(()))
        while True:
            connection.send(child.answer(connection.recv()))
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
