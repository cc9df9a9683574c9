"""The storage as an agent uses it: fewer round trips than Optuna's own calls take, with the same contents.

OwnedStorage      Optuna's storage interface; trials that this agent holds are read from memory, writes go in batches
  `-- Backend     the few questions that the ledger asks, and one batch of writes at a time
        |-- GenericBackend       any storage of Optuna's, by its public interface (a journal takes a batch at once)
        `-- RelationalBackend    SQLite, PostgreSQL, MySQL: one transaction a batch
"""

from __future__ import annotations

from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from aimlhpo.backends.backend import Backend, OpenTrial, Overview
from aimlhpo.backends.generic import GenericBackend
from aimlhpo.backends.owned import OwnedStorage

__all__ = ["Backend", "OpenTrial", "Overview", "OwnedStorage", "backend_of", "own"]


def backend_of(storage: BaseStorage) -> Backend:
    """The fastest backend that knows the storage."""
    if isinstance(storage, OwnedStorage):
        return storage.backend
    inner = getattr(storage, "_backend", None)
    if not isinstance(storage, JournalStorage) and isinstance(inner, RDBStorage):
        from aimlhpo.backends.relational import RelationalBackend  # loads SQLAlchemy, which a check has no use for

        return RelationalBackend(inner)
    return GenericBackend(storage)


def own(storage: BaseStorage) -> OwnedStorage:
    """The storage with a memory for the trials that this process holds."""
    return OwnedStorage(storage, backend_of(storage))
