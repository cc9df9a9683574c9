"""Sampling: the parameters of a trial, suggested by the study's sampler, in the agent or in a process beside it.

`Sampling` suggests the parameters of one trial, with the trial's own seed. It may take seconds of computation, so it
happens after the ledger's lock is released, and for most samplers in a process of its own, where it keeps neither the
agent's storage thread nor its main thread waiting.

`SamplingProcess` is the agent's end of that process; the agent's sampling thread asks it. `SamplingChild` answers in
the process (`python -m aimlhpo.search`). It reads the study by itself and writes nothing: it answers with what the
agent is to write. So it may be killed at any time, and a new one that is asked the same gives the same answer.
"""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from aimlhpo.errors import StudyFailed
from aimlhpo.processes import THREAD_VARIABLES, module_command
from aimlhpo.search.asha import Promotion
from aimlhpo.search.samplers import for_sampler, reseed, use_strategies
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import Operation, OwnedStorage, SetParam, backend_of
from aimlhpo.storage.retry import first_line, is_outage
from aimlhpo.storage.study import load_study, trial_seed

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

MOST_DEATHS = 3  # of the process in a row, over the same trials


class Sampling:
    """Samples trials that the study's storage holds as RUNNING; what is suggested is written to that storage.

    Attributes:
        space: the search space that trials are sampled from.
        promotion: ASHA by promotion, where the study has it.
    """

    def __init__(self, config: Config, study: optuna.Study) -> None:
        self._study = study
        self.space = config.space
        self._seed = study_attributes(study)[STUDY_ATTR]["seed"]
        self.promotion = Promotion.of(study, config.optuna.reported_metric)
        # The one place to show samplers less than the whole study, or something else.
        self._shown = for_sampler(study, pauses=self.promotion is not None)

    def sample(self, trial_id: int, number: int) -> dict[str, Any]:
        """The user's values by parameter name. Raises StudyFailed where the sampler gives none."""
        try:
            reseed(self._study.sampler, self.seed_of(number))
            return self.space.suggest(self._attach(trial_id))
        except Exception as error:
            if is_outage(error):
                raise
            message = f"{self._study.sampler} cannot suggest values for trial {number}: {error!r}"
            raise StudyFailed(message) from error

    def attach_again(self, trial_id: int, number: int) -> Trial:
        """A trial that was sampled before, ready for parameters that its objective asks for.

        These are drawn with a seed of their own.
        """
        reseed(self._study.sampler, self.seed_of(number, 1))
        return self._attach(trial_id)

    def seed_of(self, number: int, *more: int) -> int:
        """A trial's own seed, from the study's and its number: the same in every attempt, another for each trial."""
        return trial_seed(self._seed, number, *more)

    def _attach(self, trial_id: int) -> Trial:
        """The RUNNING trial, to be sampled from all that the study holds now."""
        # Samplers use the trials that Optuna kept at the last `ask`, which is never called here.
        self._shown._thread_local.cached_all_trials = None
        return Trial(self._shown, trial_id)


@dataclass(frozen=True)
class Suggestion:
    """The user's values for a trial, and the operations that write them to the storage."""

    number: int
    values: dict[str, Any]
    operations: list[Operation]


@dataclass(frozen=True)
class SamplingRefusal:
    """Why there are no suggestions; after an `outage` of the storage it is worth asking again."""

    reason: str
    outage: bool


class SamplingProcess:
    """Asks a child process for suggestions. The child lives from `start` to `close`.

    `start` and `sample` are called by one thread; `close` may be called by another one, to end what that one waits for.
    """

    def __init__(self, config: Config, sampler: str) -> None:
        """`sampler` is the sampler's name in messages."""
        self._config, self._sampler = config, sampler
        self._closed = False
        self._changing = threading.Lock()  # held while the child is ended or replaced
        self._connection: Connection | None = None

    def start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                module_command("aimlhpo.search", theirs.fileno(), os.getpid()),
                # The CPUs are for training: one thread, where nobody has said otherwise.
                env={**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        with suppress(OSError):  # it is dead already: the first request finds that out
            self._connection.send(self._config)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Kill the child. A call of `sample` that waits for it returns None."""
        with self._changing:
            self._closed = True
            self._kill()

    def sample(self, trials: Sequence[tuple[int, int]]) -> list[Suggestion] | None:
        """Suggestions for trials given as (id, number), for none once the child is loaded; None after `close`.

        A child that dies is replaced, MOST_DEATHS - 1 times. Raises OSError where the child cannot reach the storage,
        StudyFailed where the sampler gives no values.
        """
        for _ in range(MOST_DEATHS):
            answer: list[Suggestion] | SamplingRefusal | None = None
            if self._connection is not None:
                with suppress(EOFError, OSError):  # the child is dead
                    self._connection.send(trials)
                    answer = self._connection.recv()
            if isinstance(answer, list):
                return answer
            if answer is not None:
                raise OSError(errno.ETIMEDOUT, answer.reason) if answer.outage else StudyFailed(answer.reason)
            with self._changing:
                if self._closed:
                    return None
                self._kill()
                self.start()
        numbers = ", ".join(str(number) for _, number in trials)
        what = f"suggest values for trial {numbers}" if trials else "be loaded"
        raise StudyFailed(f"{self._sampler} cannot {what}: its process died {MOST_DEATHS} times")

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


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

    def answer(self, trials: Sequence[tuple[int, int]]) -> list[Suggestion] | SamplingRefusal:
        """One suggestion for each trial, given as (id, number), in their order; or why there are none."""
        try:
            if self._sampling is None:
                self._sampling = self._load()
            suggestions = []
            for trial_id, number in trials:
                self._storage.let_go(trial_id)
                self._storage.hold(trial_id)
                with self._storage.gather() as operations:  # nothing is written here
                    values = self._sampling.sample(trial_id, number)
                suggestions.append(Suggestion(number, values, operations))
            return suggestions
        except Exception as error:  # noqa: BLE001 -- the agent reports it, or asks again
            return SamplingRefusal(first_line(error) if is_outage(error) else str(error), is_outage(error))

    def _load(self) -> Sampling:
        study = load_study(self._config)
        use_strategies(study, self._config)
        study._storage = self._storage = SuggestedStorage(study._storage, backend_of(study._storage))
        study.get_trials(deepcopy=False)  # the storage keeps what it has read
        gc.freeze()
        return Sampling(self._config, study)


def serve(connection: Connection) -> None:
    """Answer the agent at the other end until it hangs up. Its first message is the configuration."""
    try:
        child = SamplingChild(connection.recv())
        # Load the study while the workers start. If this fails, the answer to the next request says so.
        child.answer(())
        while True:
            connection.send(child.answer(connection.recv()))
    except (EOFError, OSError):
        return
