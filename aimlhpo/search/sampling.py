"""Sampling: the parameters of a trial, suggested by the study's sampler, in the agent or in a process beside it.

`use_strategies` gives a study its sampler and its pruner, in the agent and in its sampling process alike. `reseed`
seeds the sampler anew for each trial, so that what it draws does not depend on which agent draws it. `after_trial`
tells it of a trial that has ended, always in the storage thread, under the ledger's lock.

`for_sampler` shows a sampler paused trials as pruned ones; `one_metric` shows a pruner one of several metrics. Both are
used by the process that samples or prunes: the agent's storage thread, and the sampling process.

`Sampling` suggests the parameters of one trial, with the trial's own seed. It may take seconds of computation, so it
happens after the ledger's lock is released, and for most samplers in a process of its own, where it keeps neither the
agent's storage thread nor its main thread waiting.

`SamplingProcess` is the agent's end of that process; the agent's sampling thread asks it. `SamplingChild` answers in
the process (`python -m aimlhpo.search`). It reads the study by itself and writes nothing: it answers with what the
agent is to write. So it may be killed at any time, and a new one that is asked the same gives the same answer.
"""

from __future__ import annotations

import copy
import errno
import gc
import logging
import os
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from aimlhpo.errors import StudyFailed
from aimlhpo.processes import THREAD_VARIABLES, module_command
from aimlhpo.search.bounded import BoundedSampler, bounded
from aimlhpo.search.building import make_pruner, make_sampler, strategies
from aimlhpo.search.queues import FixedSampler, queue_of
from aimlhpo.search.rungs import Promotion
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import (
    PAUSED,
    ForwardingStorage,
    Operation,
    OwnedStorage,
    SetParam,
    backend_of,
    trial_seed,
    waits_at_rung,
)
from aimlhpo.storage.retry import first_line, is_outage
from aimlhpo.storage.study import load_study

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)

RandomState = np.random.RandomState | np.random.Generator | random.Random
MOST_DEATHS = 3  # of the process in a row, over the same trials

# --- the study's sampler, and what it sees ---


def use_strategies(study: optuna.Study, config: Config) -> None:
    """Give the study, as it was loaded, its pruner and its sampler. Raises ConfigError.

    The sampler has the study's seed: agents share what that decides, such as the order of a quasi-random sequence.
    """
    chosen = strategies(config, study)
    study.pruner = make_pruner(chosen.pruner)
    queue = queue_of(study, config)
    if queue is not None:
        study.sampler = FixedSampler(queue.refusal)
        return
    sampler = make_sampler(chosen.sampler, study_attributes(study)[STUDY_ATTR]["seed"], config.space.encode)
    study.sampler = bounded(sampler, config.optuna.sampler_sees)


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next.

    A sampler whose random states cannot be found reseeds itself, so that agents at least do not draw the same values.
    """
    states = list(_random_states(sampler, type(sampler).__module__.partition(".")[0], set()))
    for index, state in enumerate(states):
        own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        if isinstance(state, np.random.Generator):
            state.bit_generator.state = type(state.bit_generator)(own_seed).state
        else:
            state.seed(own_seed)
    if not states:
        sampler.reseed_rng()


def _random_states(value: Any, package: str, seen: set[int]) -> Iterator[RandomState]:
    """The random states below an object, each once, in the order of its attributes.

    The search goes through dictionaries, lists, samplers, the parts of Optuna's samplers, and the objects of `package`,
    where the sampler itself comes from another package than Optuna.
    """
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, RandomState):
        yield value
        return
    module = type(value).__module__
    of_optuna = module.startswith("optuna.samplers")
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif of_optuna and isinstance(getattr(value, "rng", None), np.random.RandomState):
        parts = [value.rng]  # Optuna makes this random state when it is first asked for
    elif hasattr(value, "__dict__"):
        own = package not in ("optuna", "aimlhpo", "builtins") and module.partition(".")[0] == package
        if of_optuna or own or isinstance(value, optuna.samplers.BaseSampler):
            parts = list(vars(value).values())
    for part in parts:
        yield from _random_states(part, package, seen)


def after_trial(study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
    """Tell the study's sampler of a trial that has ended, with its final state and values.

    An error of the sampler is logged, so that the trial's result is not lost. Raises the errors of an outage.
    """
    # A sampler that has tried everything stops Optuna's loop, and raises where there is none. Here the budget decides.
    study._thread_local.in_optimize_loop = True
    try:
        study.sampler.after_trial(study, trial, state, values)
    except Exception as error:
        if is_outage(error):
            raise
        logger.warning("%s takes no note of trial %d: %s: %s", study.sampler, trial.number, type(error).__name__, error)
    finally:
        study._thread_local.in_optimize_loop = False


def needs_process(sampler: BaseSampler) -> bool:
    """Whether trials are sampled in a process of their own.

    This is so for the samplers of Optuna that use the study's history. Samplers of other packages run in the agent, as
    they may learn from `after_trial`, which is called there.
    """
    sampler = sampler.inner if isinstance(sampler, BoundedSampler) else sampler
    of_optuna = type(sampler).__module__.startswith("optuna.samplers")
    return of_optuna and not isinstance(sampler, RandomSampler | QMCSampler)


# --- the study as samplers and pruners see it ---


def one_metric(study: optuna.Study, position: int) -> optuna.Study:
    """The study with its metric at `position` alone."""
    if len(study.directions) == 1:
        return study
    return _with_storage(study, _OneMetric(study._storage, position))


def for_sampler(study: optuna.Study, *, pauses: bool) -> optuna.Study:
    """The study as every sampler takes it; `pauses`: whether its trials pause to be promoted."""
    directions = len(study.directions)
    return _with_storage(study, _ForSampler(study._storage, directions)) if pauses or directions > 1 else study


def _with_storage(study: optuna.Study, storage: BaseStorage) -> optuna.Study:
    return optuna.Study(study.study_name, storage, sampler=study.sampler, pruner=study.pruner)


def last_report(trial: FrozenTrial, directions: int) -> list[float] | None:
    """A pruned trial's value, as in Optuna: its last report, where that is a number and there is one metric."""
    if directions != 1 or not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return None if value != value else [value]


class _OneMetric(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Has one direction, and one value for each trial: those of one of several metrics."""

    def __init__(self, inner: BaseStorage, position: int) -> None:
        self.inner, self._position = inner, position

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.inner.get_study_directions(study_id)[self._position]]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Raises ValueError where no trial is complete."""
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trials are complete yet")
        maximize = self.get_study_directions(study_id)[0] == StudyDirection.MAXIMIZE
        return (max if maximize else min)(complete, key=lambda trial: trial.values[0])

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states):
            if trial.values is not None:
                trial = copy.copy(trial)
                trial.values = [trial.values[self._position]]
            seen.append(trial)
        return seen


class _ForSampler(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Paused trials are pruned ones, so that samplers learn from them before the study ends.

    With several metrics, pruned trials have no reports: TPE would rank them by the study's one direction.
    """

    def __init__(self, inner: BaseStorage, directions: int) -> None:
        self.inner, self._directions = inner, directions

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy):
            if waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)):
                trial = copy.copy(trial)
                trial.state, trial.values = TrialState.PRUNED, last_report(trial, self._directions)
            if trial.state == TrialState.PRUNED and self._directions > 1:
                trial = copy.copy(trial)
                trial.intermediate_values = {}
            if states is None or trial.state in states:
                seen.append(trial)
        return seen


# --- the parameters of a trial ---


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
