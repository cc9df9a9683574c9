"""Optuna's private names: the one module that imports them, and the question whether they may be used.

Optuna's public interface writes one value per transaction and reads a study with everything in it. aimlhpo is faster
because it knows how Optuna works inside: its tables, its journal records, its cache, its trial class. Those names may
change without notice, so that they are used only with the versions of Optuna that they were tested with (`TESTED`),
and only if all of them are there. `supported` answers that. Where it says no, storages are opened with Optuna's public
classes and driven by `Backend`: slower, with the same results; one warning in each process says why.

Set the environment variable `AIMLHPO_PUBLIC_OPTUNA` to do without the private names. The tests run both ways.

Not gathered here are `study._storage`, `study._study_id` and `trial._trial_id`, which Optuna offers no public way to.
Other packages depend on them too (Lightning, Optuna's own dashboard and integrations), which keeps them stable.

What is here: `supported`; the names themselves (for `journal` and `sql`, which are imported only where they are
supported); and `LazyTrial`, a trial that depends on how Optuna's own is laid out, with two helpers for reading many
trials.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, create_trial

try:
    from optuna.storages._cached_storage import _CachedStorage as CachedStorage
    from optuna.storages._cached_storage import _StudyInfo as StudyInfo
    from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult
    from optuna.study._frozen import FrozenStudy
except ImportError as error:
    _import_error: str | None = str(error)
else:
    _import_error = None

__all__ = [  # those that are only passed on; without this mypy takes them for private to this module
    "CachedStorage", "FrozenStudy", "JournalOperation", "JournalStorageReplayResult", "StudyInfo",
]  # fmt: skip

logger = logging.getLogger(__name__)

TESTED = "optuna >=5.0,<6"
_FIRST, _TOO_NEW = (5, 0), (6, 0)
PUBLIC_ONLY = "AIMLHPO_PUBLIC_OPTUNA"

_reported = False


def supported(*, relational: bool = False) -> bool:
    """Whether Optuna's private names may be used; if not, a warning says why, once in a process.

    `relational` asks about Optuna's database tables as well, which takes an import of SQLAlchemy.
    """
    global _reported
    version = re.match(r"(\d+)\.(\d+)", optuna.__version__)
    if os.environ.get(PUBLIC_ONLY):
        reason = f"{PUBLIC_ONLY} is set"
    elif version is None or not _FIRST <= (int(version[1]), int(version[2])) < _TOO_NEW:
        reason = f"aimlhpo was tested with {TESTED}, and this is {optuna.__version__}"
    elif (missing := _first_missing(relational)) is not None:
        reason = f"Optuna {optuna.__version__} is not made as expected: {missing}"
    else:
        return True
    if not _reported:
        _reported = True
        logger.warning("Optuna's storages are used by their public interface, which is slower: %s", reason)
    return False


@cache
def _first_missing(relational: bool) -> str | None:
    """The first private name that this Optuna lacks, in words; None if all are there."""
    if _import_error is not None:
        return _import_error
    try:
        replay, operations = JournalStorageReplayResult("probe-"), [operation.name for operation in JournalOperation]
        expected: list[tuple[Any, str]] = [
            (JournalOperation, "CREATE_TRIAL SET_TRIAL_PARAM DISCARD_TRIALS"),
            (JournalStorage, "_sync_with_backend _write_log"),
            (
                replay,
                "log_number_read worker_id _worker_id_prefix _is_issued_by_this_worker _trial_exists_and_updatable",
            ),
            (replay, "_studies _trials _study_id_to_trial_ids _trial_id_to_study_id _next_study_id"),
            (replay, " ".join(f"_apply_{name.lower()}" for name in operations if name != "DISCARD_TRIALS")),
            (CachedStorage, "_add_trials_to_cache"),
            (StudyInfo(), "trials unfinished_trial_ids last_finished_trial_id"),
            (create_trial(value=0.0), "_trial_id _values _user_attrs _system_attrs intermediate_values"),
        ]
        if relational:
            models = relational_models()
            expected += [
                (models.StudyModel, "study_id"),
                (models.StudySystemAttributeModel, "study_id key value_json"),
                (models.TrialModel, "trial_id number study_id state _datetime_start_utc _datetime_complete_utc"),
                (models.TrialParamModel, "param_id param_name param_value distribution_json"),
                (models.TrialValueModel, "objective value value_type value_to_stored_repr stored_repr_to_value"),
                (models.TrialIntermediateValueModel, "step intermediate_value intermediate_value_type"),
                (models.TrialUserAttributeModel, "trial_id key value_json"),
                (models.TrialSystemAttributeModel, "trial_id key value_json"),
            ]
    except (ImportError, AttributeError, TypeError) as error:
        return str(error)
    for owner, names in expected:
        for name in names.split():
            if not hasattr(owner, name):
                return f"{getattr(owner, '__name__', type(owner).__name__)} has no {name}"
    return None


def relational_models() -> ModuleType:
    """The module with the classes of Optuna's database tables."""
    from optuna.storages._rdb import models  # with SQLAlchemy, which takes long to import and journals do not need

    return models


# --- reading many trials ---


_ATTRS = ("_user_attrs", "_system_attrs")
_CURVE = "intermediate_values"

ReadCurve = Callable[["LazyTrial"], None]
"""Sets a trial's intermediate values when somebody asks for them; it may set those of other trials as well."""


class LazyTrial(FrozenTrial):
    """A trial whose attributes are still JSON texts, and whose intermediate values are still in the storage.

    Most readers of a large study never ask for them. Copies (copy, deepcopy, pickle) are plain FrozenTrials with
    everything in them.
    """

    __slots__ = ("_json", "curves")
    _json: dict[str, Sequence[tuple[str, str]]]
    curves: ReadCurve

    @classmethod
    def of(
        cls,
        user_attrs: Sequence[tuple[str, str]],
        system_attrs: Sequence[tuple[str, str]],
        curves: ReadCurve,
        **known: Any,
    ) -> LazyTrial:
        """Attributes are (key, JSON text); `known` are the other arguments of FrozenTrial."""
        trial = cls(user_attrs={}, system_attrs={}, intermediate_values={}, value=None, **known)
        for name in (*_ATTRS, _CURVE):
            del trial.__dict__[name]
        trial._json = {"_user_attrs": user_attrs, "_system_attrs": system_attrs}
        trial.curves = curves
        return trial

    def __getattr__(self, name: str) -> Any:
        """Called by Python for an attribute that has not been read yet."""
        if name in _ATTRS:
            texts = self._json.get(name)  # gone where another thread has read them meanwhile
            if texts is not None:
                self.__dict__[name] = {key: json.loads(text) for key, text in texts}
                self._json.pop(name, None)
        elif name == _CURVE:
            self.curves(self)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__[name]

    def unread(self, name: str) -> Sequence[tuple[str, str]] | None:
        """`_user_attrs` or `_system_attrs` as they were given, if nobody has read them yet."""
        return self._json.get(name)

    @property
    def has_curve(self) -> bool:
        """Whether the intermediate values have been read."""
        return _CURVE in self.__dict__

    def plain(self) -> FrozenTrial:
        """The same as Optuna's own class, with everything read."""
        trial = FrozenTrial.__new__(FrozenTrial)
        for name in (*_ATTRS, _CURVE):
            getattr(self, name)
        trial.__dict__.update(self.__dict__)
        return trial

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenTrial.__new__, (FrozenTrial,), self.plain().__dict__

    def __eq__(self, other: Any) -> bool:
        return self.plain() == (other.plain() if isinstance(other, LazyTrial) else other)

    def __hash__(self) -> int:
        return hash(self.plain())

    def __repr__(self) -> str:
        return repr(self.plain())


@lru_cache(maxsize=4096)
def shared_distribution(text: str) -> BaseDistribution:
    """The distribution of a JSON text; all trials that have the same one share it."""
    return json_to_distribution(text)


@contextmanager
def collection_paused() -> Iterator[None]:
    """Switch Python's garbage collector off while many objects are made that all stay.

    It would go through them again and again, which doubles the time of reading a large study.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
