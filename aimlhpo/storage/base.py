"""How the rest of the package speaks with a storage, and the storage as an agent uses it.

Operations are the writes to a trial as values, so that they can be gathered and written together. `OpenTrial` and
`Overview` are what the ledger needs to know of a study; `PendingState` is that with what it has decided since. A
backend answers these questions, and writes one batch of operations at a time:

    Backend             any storage, by Optuna's public interface; one call for each value
    JournalBackend      a journal file (in `journal`): one append for a batch
    RelationalBackend   SQLite, PostgreSQL, MySQL (in `sql`): one transaction for a batch

The last two are subclasses of the first. They belong to storage classes that rely on Optuna's private names; see
`optuna_internals`.

`OwnedStorage` has Optuna's storage interface, and takes fewer round trips than Optuna's own calls, with the same
contents. It remembers the trials that this process holds, and gathers the writes to them, so that a whole batch is one
transaction. One thread uses it: the agent's storage thread, or the sampling process.
"""

from __future__ import annotations

import copy
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

# Each operation can be replayed on a storage: one call of Optuna's public interface.


@dataclass(frozen=True)
class SetParam:
    trial_id: int
    name: str
    internal: float
    distribution: BaseDistribution

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_param(self.trial_id, self.name, self.internal, self.distribution)


@dataclass(frozen=True)
class SetIntermediate:
    trial_id: int
    step: int
    value: float

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_intermediate_value(self.trial_id, self.step, self.value)


@dataclass(frozen=True)
class SetUserAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_user_attr(self.trial_id, self.key, self.value)


@dataclass(frozen=True)
class SetSystemAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_system_attr(self.trial_id, self.key, self.value)


@dataclass(frozen=True)
class SetState:
    trial_id: int
    state: TrialState
    values: Sequence[float] | None = None

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_state_values(self.trial_id, self.state, self.values)


@dataclass(frozen=True)
class SetStart:
    """When a trial began that was claimed ahead; Optuna's public interface keeps the time of the claim instead."""

    trial_id: int
    at: datetime

    def replay(self, storage: BaseStorage) -> None:
        pass


Operation = SetParam | SetIntermediate | SetUserAttr | SetSystemAttr | SetState | SetStart


FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
SUCCESSFUL = (TrialState.COMPLETE, TrialState.PRUNED)
UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)

CLAIM = "aimlhpo:claim"
RELEASED = "aimlhpo:released"
PAUSED = "aimlhpo:paused"
STATUS_ATTRS = (CLAIM, RELEASED, PAUSED)
"""System attributes of a trial: who holds it, how its earlier attempts ended, and at which rung it waits."""
SECTION, BY_SECTION = "section", "by_section"
"""Keys in a claim and in a record: the section of `slurm` that the trial runs in, of several. In a history and in a
record: the `seconds` and `gpu_seconds` that it took in each of them, by section; the rest was spent in none of them."""
CHANGES = "aimlhpo:changes"
"""System attribute of the study: what was changed in its configuration since it was made, a list of mappings."""


def waits_at_rung(state: TrialState, paused: Mapping[str, Any] | None) -> bool:
    """Whether a trial is paused, and goes on only if it is promoted; `paused` is its attribute."""
    return state == TrialState.WAITING and bool(paused) and not (paused or {}).get("promoted")


def token_of(trial: FrozenTrial) -> str | None:
    """The token of the claim that a trial is, or was last, held under."""
    return (trial.system_attrs.get(CLAIM) or {}).get("token")


def trial_seed(study_seed: int, number: int, *more: int) -> int:
    """A trial's own seed, from its study's and its number: the same in every attempt, another for each trial.

    `more` tells apart several seeds of one trial.
    """
    return int(np.random.SeedSequence([study_seed, number, *more]).generate_state(1)[0] % 2**31)


def new_token() -> str:
    """Names one claim, and nothing else ever."""
    return secrets.token_hex(8)


def has_begun(claim: Mapping[str, Any]) -> bool:
    """Whether a claimed trial was started; one that was claimed ahead still waits for a slot of its agent."""
    return claim.get("since", 0.0) is not None


@dataclass(frozen=True)
class OpenTrial:
    """A trial as the ledger sees it: who holds it, how often it was given back, and whether it waits at a rung."""

    trial_id: int
    number: int
    state: TrialState
    claim: dict[str, Any] | None = None
    released: dict[str, Any] | None = None
    paused: dict[str, Any] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether it waits at a rung, and goes on only if it is promoted."""
        return waits_at_rung(self.state, self.paused)

    @property
    def rung(self) -> int | None:
        """The resource of the rung that it last paused at."""
        return (self.paused or {}).get("rung")

    @property
    def token(self) -> str | None:
        """The token of its last claim."""
        return (self.claim or {}).get("token")

    @property
    def begun(self) -> bool:
        """Whether it was started under its last claim."""
        return has_begun(self.claim or {})

    @property
    def attempts(self) -> int:
        """How often the trial was begun and given back."""
        return int((self.released or {}).get("attempts", 0))

    @property
    def seconds(self) -> float:
        """Time spent in earlier attempts."""
        return float((self.released or {}).get("seconds", 0.0))

    @property
    def gpu_seconds(self) -> float:
        """The same, times the GPUs that it had."""
        return float((self.released or {}).get("gpu_seconds", 0.0))

    def ended_with(self, token: str) -> bool:
        """Whether the claim with this token has ended the trial, or paused it."""
        if self.is_paused:
            return (self.paused or {}).get("token") == token
        return self.state.is_finished() and self.token == token and not self.interrupted_with(token)

    def interrupted_with(self, token: str | None) -> bool:
        """Whether the trial's history has the end of the attempt under this token already."""
        return token is not None and (self.released or {}).get("token") == token

    def held_with(self, token: str) -> bool:
        """Whether the claim with this token is the one that the trial runs under."""
        return self.state == TrialState.RUNNING and self.token == token


def open_trial_of(trial: FrozenTrial) -> OpenTrial:
    """What the ledger needs to know of a trial that was read in full."""
    attrs = (trial.system_attrs.get(key) for key in STATUS_ATTRS)
    return OpenTrial(trial._trial_id, trial.number, trial.state, *attrs)


class Place(NamedTuple):
    """A trial's id in the storage and its number in the study."""

    trial_id: int
    number: int


@dataclass(frozen=True)
class Overview:
    """Finished trials by state, and the RUNNING and WAITING ones, by number; and what was changed in the study."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    open: Sequence[OpenTrial] = field(default_factory=list)
    changes: Sequence[Mapping[str, Any]] = ()

    @property
    def paused(self) -> list[OpenTrial]:
        return [trial for trial in self.open if trial.is_paused]


@dataclass(frozen=True)
class Counts:
    """Trials of the study by state.

    Agents hold the `running` ones, and the `ready` ones, which have not begun; `paused` ones wait to be promoted.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    paused: int = 0
    ready: int = 0

    @property
    def finished(self) -> int:
        """How many trials of the budget are used up."""
        return self.complete + self.pruned

    @property
    def claimed(self) -> int:
        """How many trials of the budget are being used."""
        return self.running + self.ready


def count_overview(overview: Overview, imported: tuple[int, int] = (0, 0)) -> Counts:
    """Count the study's own trials; `imported` are the COMPLETE and PRUNED trials of other studies in it.

    A RUNNING trial that no agent claimed belongs to somebody else and is left out.
    """
    held = [trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.claim]
    begun = sum(trial.begun for trial in held)
    return Counts(
        complete=overview.complete - imported[0],
        pruned=overview.pruned - imported[1],
        failed=overview.failed,
        running=begun,
        waiting=sum(trial.state == TrialState.WAITING and not trial.is_paused for trial in overview.open),
        paused=len(overview.paused),
        ready=len(held) - begun,
    )


def overview_from(trials: Sequence[FrozenTrial], changes: Sequence[Mapping[str, Any]] = ()) -> Overview:
    """The overview of a study with these trials and changes."""
    states = Counter(trial.state for trial in trials)
    return overview_of(states, [open_trial_of(trial) for trial in trials if trial.state in UNFINISHED], changes)


def overview_of(
    states: Counter[TrialState], unfinished: Sequence[OpenTrial], changes: Sequence[Mapping[str, Any]] = ()
) -> Overview:
    """The overview of a study from the number of its trials in each state, those that are not finished, and changes."""
    complete, pruned, failed = (states[state] for state in FINISHED)
    return Overview(complete, pruned, failed, unfinished, changes)


_NOWHERE = -1  # where a trial is that is not made yet
_COUNTED = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class PendingState:
    """The study as it will be after decisions that are not written yet: each sees what those before it have decided.

    Attributes:
        overview: the study with all that is decided so far.
        operations: what is to be written for it.
        new: the trials to be made.
    """

    def __init__(self, overview: Overview, operations: list[Operation]) -> None:
        self.overview, self.operations = overview, operations
        self.new: list[FrozenTrial] = []

    def find(self, trial_id: int) -> OpenTrial | None:
        return next((trial for trial in self.overview.open if trial.trial_id == trial_id), None)

    def change(self, trial: OpenTrial, **changes: Any) -> None:
        """An open trial stays open, with something else about it."""
        now = [replace(other, **changes) if other is trial else other for other in self.overview.open]
        self.overview = replace(self.overview, open=now)

    def end(self, trial: OpenTrial, state: TrialState) -> None:
        """An open trial ends."""
        name = _COUNTED[state]
        rest = [other for other in self.overview.open if other is not trial]
        self.overview = replace(self.overview, open=rest, **{name: getattr(self.overview, name) + 1})

    def add(self, found: Iterable[OpenTrial]) -> None:
        """Take note of trials that have been made meanwhile."""
        known = {trial.trial_id for trial in self.overview.open}
        added = [trial for trial in found if trial.trial_id not in known]
        self.overview = replace(self.overview, open=[*self.overview.open, *added])

    def make(self, trial: FrozenTrial) -> None:
        """A trial is to be made, claimed from the start."""
        self.new.append(trial)
        made = OpenTrial(_NOWHERE, _NOWHERE, trial.state, trial.system_attrs.get(CLAIM))
        self.overview = replace(self.overview, open=[*self.overview.open, made])


class Backend:
    """What the ledger asks of a storage, and how a batch of operations is written to it.

    This one drives any storage by Optuna's public interface: one call for each value; an error may end a batch halfway.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def overview(self, study_id: int) -> Overview:
        """The study as it is now."""
        changes = self.storage.get_study_system_attrs(study_id).get(CHANGES, ())
        return overview_from(self.storage.get_all_trials(study_id, deepcopy=False), changes)

    def latest_ends(self, study_id: int, most: int, states: tuple[TrialState, ...] = SUCCESSFUL) -> Sequence[datetime]:
        """When the last of the trials in these states ended, in local time; the earliest first."""
        trials = self.storage.get_all_trials(study_id, deepcopy=False, states=states)
        return sorted(trial.datetime_complete for trial in trials if trial.datetime_complete)[-most:]

    def open_trial(self, trial_id: int) -> OpenTrial:
        """One trial as it is now. Raises KeyError where there is none."""
        return open_trial_of(self.storage.get_trial(trial_id))

    def introduce(self, operation: SetParam) -> None:
        """Write a parameter that is new to this process. Raises ValueError if its kind is not the study's."""
        operation.replay(self.storage)

    def batch(self) -> AbstractContextManager[None]:
        """What is written inside is written together, where the storage can do so."""
        return nullcontext()

    def apply(self, operations: Sequence[Operation]) -> None:
        """Write a batch, in order; all of it or nothing, if the storage can do so."""
        with self.batch():
            for operation in operations:
                operation.replay(self.storage)

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        """Write a batch, and make trials with the states and system attributes of `new`.

        Returns where the claimed ones among the new trials are, by the token of their claim.
        """
        with self.batch():
            for operation in operations:
                operation.replay(self.storage)
            for trial in new:
                self.storage.create_new_trial(study_id, template_trial=trial)
        # The trials that were just made are found by the tokens of their claims.
        tokens = {token for trial in new if (token := token_of(trial))}
        if not tokens:
            return {}
        running = self.storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        claimed = ((token_of(trial), Place(trial._trial_id, trial.number)) for trial in running)
        return {token: place for token, place in claimed if token in tokens}


# --- the storage as an agent uses it ---


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

    def hold(self, trial_id: int) -> None:
        """From now on the trial is this process's."""
        self._held.setdefault(trial_id, None)

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


def backend_of(storage: BaseStorage) -> Backend:
    """The storage's own backend if its class has one, else one that works with any storage."""
    if isinstance(storage, OwnedStorage):
        return storage.backend
    make_backend = getattr(storage, "make_backend", None)
    return make_backend() if make_backend is not None else Backend(storage)


def own(storage: BaseStorage) -> OwnedStorage:
    """The storage with a memory for the trials that this process holds."""
    return OwnedStorage(storage, backend_of(storage))
