"""The storage as an agent uses it: fewer round trips than Optuna's own calls take, with the same contents.

`OwnedStorage` has Optuna's storage interface. It remembers the trials that this process holds, and gathers the writes
to them, so that a whole batch is one transaction. Underneath, a `Backend` answers the few questions that the ledger
asks and writes one batch at a time:

    GenericBackend      any storage, by Optuna's public interface; one call for each value
    JournalBackend      a journal file (in `journal`): one append for a batch
    RelationalBackend   SQLite, PostgreSQL, MySQL (in `sql`): one transaction for a batch

The last two belong to storage classes that rely on Optuna's private names; see `optuna_internals`.

One thread uses an `OwnedStorage`: the agent's storage thread, or the sampling process.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import (
    STATUS_ATTRS,
    Backend,
    OpenTrial,
    Operation,
    Overview,
    Place,
    SetIntermediate,
    SetParam,
    SetStart,
    SetState,
    SetSystemAttr,
    SetUserAttr,
    token_of,
)


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **named)

    return method


ForwardingStorage: type[BaseStorage] = type(
    "ForwardingStorage", (BaseStorage,), {name: _forward(name) for name in BaseStorage.__abstractmethods__}
)
"""A storage that forwards every call to `self.inner`; subclasses define what they do otherwise."""


class OwnedStorage(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Reads held trials from memory, which is right because nobody else may write to them.

    After a write that failed, what was remembered of its trials is forgotten; it is read again when it is next needed.
    """

    def __init__(self, inner: BaseStorage, backend: Backend) -> None:
        self.inner = inner
        self.backend = backend
        self._held: dict[int, FrozenTrial | None] = {}  # None: held, and not read yet
        self._distributions: dict[str, BaseDistribution] = {}
        self._gathered: list[Operation] | None = None

    def hold(self, trial_id: int, trial: FrozenTrial | None = None) -> None:
        """From now on the trial is this process's; `trial` is what is known of it already."""
        self._held.setdefault(trial_id, trial)

    def held(self, trial_id: int) -> FrozenTrial | None:
        """What is remembered of a trial, if anything."""
        return self._held.get(trial_id)

    def let_go(self, trial_id: int) -> None:
        """The trial is not this process's any more."""
        self._held.pop(trial_id, None)

    def forget(self, operations: Iterable[Operation]) -> None:
        """These operations were not written: what is remembered of their trials is wrong."""
        for operation in operations:
            if operation.trial_id in self._held:
                self._held[operation.trial_id] = None

    @contextmanager
    def gather(self) -> Iterator[list[Operation]]:
        """Collect the writes to held trials instead of writing them: the caller writes or forgets them."""
        outer, operations = self._gathered, list[Operation]()
        self._gathered = operations
        try:
            yield operations
        except BaseException:
            self.forget(operations)
            raise
        finally:
            self._gathered = outer

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect the writes to held trials, and write them at once at the end; after an error, write nothing."""
        if self._gathered is not None:
            yield
            return
        with self.gather() as operations:
            yield
            if operations:
                self.backend.apply(operations)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.deepcopy(self._remembered(trial_id)) if trial_id in self._held else self.inner.get_trial(trial_id)

    def set_trial_param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        """Raises ValueError where the study has another kind of parameter under the name."""
        operation = SetParam(trial_id, name, internal, distribution)
        if trial_id in self._held and name in self._distributions:
            check_distribution_compatibility(self._distributions[name], distribution)
            self.write(operation)
            return
        self.backend.introduce(operation)
        self._distributions[name] = distribution
        if trial_id in self._held:
            self._remember(operation)

    def set_trial_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        self.write(SetIntermediate(trial_id, step, value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.write(SetUserAttr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.write(SetSystemAttr(trial_id, key, value))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if trial_id not in self._held:
            return self.inner.set_trial_state_values(trial_id, state, values)
        self.write(SetState(trial_id, state, values))
        return True

    def write(self, operation: Operation) -> None:
        """Write one value, at once or with the batch that is open."""
        if operation.trial_id not in self._held:
            operation.replay(self.inner)
            return
        self._remember(operation)
        if self._gathered is not None:
            self._gathered.append(operation)
            return
        try:
            self.backend.apply([operation])
        except BaseException:
            self.forget([operation])
            raise

    def _remember(self, operation: Operation) -> None:
        trial = self._remembered(operation.trial_id)
        match operation:
            case SetParam(name=name, internal=internal, distribution=distribution):
                trial.params[name] = distribution.to_external_repr(internal)
                trial.distributions[name] = distribution
            case SetIntermediate(step=step, value=value):
                trial.intermediate_values[step] = value
            case SetUserAttr(key=key, value=value):
                trial.user_attrs[key] = value
            case SetSystemAttr(key=key, value=value):
                trial.system_attrs[key] = value
            case SetState(state=state, values=values):
                trial.state = state
                if values is not None:
                    trial.values = list(values)
            case SetStart(at=at):
                trial.datetime_start = at

    def _remembered(self, trial_id: int) -> FrozenTrial:
        trial = self._held[trial_id]
        if trial is None:
            trial = self._held[trial_id] = copy.deepcopy(self.inner.get_trial(trial_id))
        return trial


_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class GenericBackend:
    """Drives any storage by Optuna's public interface: one call for each value; an error may end a batch halfway."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def overview(self, study_id: int) -> Overview:
        trials = self.storage.get_all_trials(study_id, deepcopy=False)
        states = Counter(trial.state for trial in trials)
        return overview_of(states, [trial for trial in trials if trial.state in _OPEN])

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = self.storage.get_all_trials(study_id, deepcopy=False, states=states)
        return sorted(trial.datetime_complete for trial in trials if trial.datetime_complete)[-most:]

    def open_trial(self, trial_id: int) -> OpenTrial:
        return _open_trial(self.storage.get_trial(trial_id))

    def introduce(self, operation: SetParam) -> None:
        operation.replay(self.storage)

    def apply(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.replay(self.storage)

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        self.apply(operations)
        for trial in new:
            self.storage.create_new_trial(study_id, template_trial=trial)
        return self.places(study_id, new)

    def places(self, study_id: int, new: Sequence[FrozenTrial]) -> dict[str, Place]:
        """Find the trials that were just made by the tokens of their claims."""
        tokens = {token for trial in new if (token := token_of(trial))}
        if not tokens:
            return {}
        running = self.storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        claimed = ((token_of(trial), Place(trial._trial_id, trial.number)) for trial in running)
        return {token: place for token, place in claimed if token in tokens}


def overview_of(states: Counter[TrialState], unfinished: Iterable[FrozenTrial]) -> Overview:
    """The overview of a study from the number of its trials in each state, and those that are not finished."""
    return Overview(
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        open=[_open_trial(trial) for trial in unfinished],
    )


def _open_trial(trial: FrozenTrial) -> OpenTrial:
    attrs = (trial.system_attrs.get(key) for key in STATUS_ATTRS)
    return OpenTrial(trial._trial_id, trial.number, trial.state, *attrs)


def backend_of(storage: BaseStorage) -> Backend:
    """The storage's own backend if its class has one, else the generic one."""
    if isinstance(storage, OwnedStorage):
        return storage.backend
    make_backend = getattr(storage, "make_backend", None)
    return make_backend() if make_backend is not None else GenericBackend(storage)


def own(storage: BaseStorage) -> OwnedStorage:
    """The storage with a memory for the trials that this process holds."""
    return OwnedStorage(storage, backend_of(storage))
