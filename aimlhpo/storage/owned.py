"""Optuna's storage interface with a memory for the trials that this process holds, and writes in batches.
The storage as an agent uses it: fewer round trips than Optuna's own calls take, with the same contents.

OwnedStorage      Optuna's storage interface; trials that this agent holds are read from memory, writes go in batches
  `-- Backend     the few questions that the ledger asks, and one batch of writes at a time
        |-- GenericBackend       any storage of Optuna's, by its public interface (a journal takes a batch at once)
        `-- RelationalBackend    SQLite, PostgreSQL, MySQL: one transaction a batch
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import (
    Backend,
    Operation,
    PassingOn,
    SetIntermediate,
    SetParam,
    SetState,
    SetSystemAttr,
    SetUserAttr,
)
from aimlhpo.storage.generic import GenericBackend

if TYPE_CHECKING:
    from aimlhpo.storage.base import Backend


class OwnedStorage(PassingOn):  # type: ignore[valid-type, misc]
    """Reads held trials from memory, which is right because nobody else may write to them.

    After a write that failed, what was remembered of its trials is forgotten: it is read anew when it is next needed.
    Used by one thread.
    """

    def __init__(self, inner: BaseStorage, backend: Backend) -> None:
        self.inner = inner
        self.backend = backend
        self._held: dict[int, FrozenTrial | None] = {}
        self._known: dict[str, BaseDistribution] = {}
        self._batch: list[Operation] | None = None

    def hold(self, trial_id: int, trial: FrozenTrial | None = None) -> None:
        """From now on the trial is this process's; `trial` is what is known of it already."""
        self._held.setdefault(trial_id, trial)

    def held(self, trial_id: int) -> FrozenTrial | None:
        """What is remembered of a trial, if anything."""
        return self._held.get(trial_id)

    def let_go(self, trial_id: int) -> None:
        self._held.pop(trial_id, None)

    @contextmanager
    def gather(self) -> Iterator[list[Operation]]:
        """Hold back the writes to held trials: who gathers writes them, or has them forgotten."""
        outer, operations = self._batch, list[Operation]()
        self._batch = operations
        try:
            yield operations
        except BaseException:
            self.forget(operations)
            raise
        finally:
            self._batch = outer

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather the writes to held trials, and write them at once in the end; nothing is written after an error."""
        if self._batch is not None:
            yield
            return
        with self.gather() as operations:
            yield
            self._apply(operations)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.deepcopy(self._remembered(trial_id)) if trial_id in self._held else self.inner.get_trial(trial_id)

    def set_trial_param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        """Raises ValueError where the study has another kind of parameter under the name."""
        operation = SetParam(trial_id, name, internal, distribution)
        if trial_id in self._held and name in self._known:
            check_distribution_compatibility(self._known[name], distribution)
            self.write(operation)
            return
        self.backend.introduce(operation)
        self._known[name] = distribution
        if trial_id in self._held:
            operation.remember(self._remembered(trial_id))

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
        operation.remember(self._remembered(operation.trial_id))
        if self._batch is not None:
            self._batch.append(operation)
            return
        try:
            self._apply([operation])
        except BaseException:
            self.forget([operation])
            raise

    def _apply(self, operations: Sequence[Operation]) -> None:
        if operations:
            self.backend.apply(operations)

    def _remembered(self, trial_id: int) -> FrozenTrial:
        trial = self._held[trial_id]
        if trial is None:
            trial = self._held[trial_id] = copy.deepcopy(self.inner.get_trial(trial_id))
        return trial

    def forget(self, operations: Iterable[Operation]) -> None:
        """What was remembered of them was not written."""
        for trial_id in {operation.trial_id for operation in operations}:
            self._forget_one(trial_id)

    def _forget_one(self, trial_id: int) -> None:
        if trial_id in self._held:
            self._held[trial_id] = None


def backend_of(storage: BaseStorage) -> Backend:
    """The fastest backend that knows the storage."""
    if isinstance(storage, OwnedStorage):
        return storage.backend
    inner = getattr(storage, "_backend", None)
    if not isinstance(storage, JournalStorage) and isinstance(inner, RDBStorage):
        from aimlhpo.storage.sql import RelationalBackend

        return RelationalBackend(inner)
    return GenericBackend(storage)


def own(storage: BaseStorage) -> OwnedStorage:
    """The storage with a memory for the trials that this process holds."""
    return OwnedStorage(storage, backend_of(storage))
