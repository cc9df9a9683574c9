"""The storage side of an agent's work; every method runs in the clerk's thread and is safe to repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from aimlhpo.agent.interpreter import keep_all
from aimlhpo.agent.preparing import Preparing, Work
from aimlhpo.agent.pruning import Pruning
from aimlhpo.agent.records import provenance_id, refused
from aimlhpo.agent.tray import Begun, Pile, Tray
from aimlhpo.backends import OwnedStorage
from aimlhpo.backends.operations import Operation
from aimlhpo.checkpoints import Checkpoints
from aimlhpo.counts import FINISHED, Counts
from aimlhpo.history import History
from aimlhpo.ledger import Beginning, Claim, Finish, Ledger, Settled, Turn
from aimlhpo.outbox import Result
from aimlhpo.patience import is_outage
from aimlhpo.protocol import Decision, Report
from aimlhpo.results import ResultsWriter
from aimlhpo.stopping import Ended, Look
from aimlhpo.storage import STUDY_ATTR

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config
    from aimlhpo.leases import Lease


@dataclass(frozen=True)
class Standing:
    """The study as the bookkeeper last saw it."""

    counts: Counts = field(default_factory=Counts)
    best: tuple[int, float] | None = None
    failures: int = 0
    longest: float = 0.0
    ended: Ended | None = None


@dataclass(frozen=True)
class Done:
    """What came of a turn: the ledger's answers, pruning decisions, what was refused, and trials that are ready.

    `term` is the lease's when the claims were made, `seconds` is what the turn took.
    """

    settled: Settled
    decisions: list[Decision]
    complaints: list[str]
    works: list[Work]
    term: int
    seconds: float


class TurnJob:
    """A clerk's job: all that lies in the tray. When it is repeated, it takes along what has come in since."""

    def __init__(self, tray: Tray, work: Callable[[Pile], Done]) -> None:
        self._tray, self._work = tray, work
        self._pile = Pile()

    def __call__(self) -> Done:
        self._pile.take(self._tray.empty())
        return self._work(self._pile)


class Bookkeeper:
    """Claims, reports, decides, finishes and releases for one agent."""

    def __init__(
        self,
        config: Config,
        study: optuna.Study,
        storage: OwnedStorage,
        ledger: Ledger,
        lease: Lease,
        preparing: Preparing,
    ) -> None:
        self._config, self._study, self._ledger, self._lease = config, study, ledger, lease
        self._storage, self._preparing = storage, preparing
        self._results, self._checkpoints = ResultsWriter(study, config), Checkpoints(study, config)
        self._signed = study.user_attrs[STUDY_ATTR]
        self._history = History(float(self._signed["started"]))
        self._held: dict[int, Claim] = {}
        self._complaints: list[str] = []
        self._has_claimed = self._loaded = False
        self._pruning = Pruning(study, config.optuna.reported_metric)
        self._at_stop, self._look = config.optuna.at_stop, Look(ledger.ended)

    # --- a turn ---

    def turn(self, pile: Pile) -> Done:
        """Do all that has gathered, in one write."""
        begun = time.monotonic()
        self._confirm_claims()
        term, self._complaints = self._lease.term, []
        ended = {entry.claim.number for entry in pile.ended}
        along: dict[int, list[Operation]] = {}
        reports = {number: batch for number, batch in pile.reports.items() if number not in ended}
        decisions = [self._report(batch, along) for batch in reports.values()]
        self._add_attributes(pile, along)
        self._add_suggestions(pile, along)
        finishes = [_finish(entry.claim, entry.result) for entry in pile.ended]
        beginnings = [_beginning(entry) for entry in pile.begun if self._held.get(entry.claim.number) == entry.claim]
        settled = self._settle(Turn(finishes, pile.releases, pile.wishes, along, beginnings))
        self._note(pile, settled)
        works = [self._preparing.work(entry.claim, entry.suggestion.values, entry.term) for entry in pile.sampled]
        return Done(settled, decisions, self._complaints, works, term, time.monotonic() - begun)

    def _report(self, reports: list[Report], along: dict[int, list[Operation]]) -> Decision:
        """Gather a trial's reports, in order, and decide on the last; a trial that was lost had better end."""
        number, step = reports[-1].number, reports[-1].step
        if number not in self._held:
            return Decision(number, step, prune=True)
        trial_id = self._held[number].trial_id
        prune = False
        try:
            with self._storage.gather() as operations:
                for report in reports:
                    self._storage.set_trial_intermediate_value(trial_id, report.step, report.value)
                prune = self._pruning.decide(trial_id, [report.step for report in reports])
            along.setdefault(trial_id, []).extend(operations)
        except Exception as error:
            if is_outage(error):
                raise
            self._complain(number, error)
        return Decision(number, step, prune or self._ends_with_study())

    def _ends_with_study(self) -> bool:
        """Whether running trials are to give up because a rule has ended the study."""
        return self._at_stop == "prune" and self._look.ended()

    def _add_attributes(self, pile: Pile, along: dict[int, list[Operation]]) -> None:
        with self._storage.gather() as operations:
            for attribute in pile.attributes:
                if attribute.number in self._held:
                    trial_id = self._held[attribute.number].trial_id
                    self._storage.set_trial_user_attr(trial_id, attribute.key, attribute.value)
        for operation in operations:
            along.setdefault(operation.trial_id, []).append(operation)

    def _add_suggestions(self, pile: Pile, along: dict[int, list[Operation]]) -> None:
        for entry in pile.sampled:
            if self._held.get(entry.claim.number) == entry.claim:
                with self._storage.gather() as operations:
                    for operation in entry.suggestion.operations:
                        operation.replay(self._storage)
                along.setdefault(entry.claim.trial_id, []).extend(operations)

    def _settle(self, turn: Turn) -> Settled:
        """Where the storage refuses a value, that costs its trial, not the others."""
        try:
            return self._ledger.settle(turn)
        except Exception as error:
            self._storage.forget(turn.operations)
            if is_outage(error):
                raise
            parts = list(turn.parts())
            if len(parts) > 1:
                return Settled.of([self._settle(part) for part in parts])
            return self._without_refused(turn, error)

    def _without_refused(self, turn: Turn, error: Exception) -> Settled:
        if turn.finishes:
            (finish,) = turn.finishes
            failed = Finish(finish.claim, TrialState.FAIL, None, refused(finish.record, error))
            return self._ledger.settle(Turn([failed]))
        if not (turn.along or turn.beginnings):
            raise error
        numbers = {claim.trial_id: claim.number for claim in self._held.values()}
        for trial_id in (*turn.along, *(beginning.claim.trial_id for beginning in turn.beginnings)):
            self._complain(numbers[trial_id], error)
        return Settled()

    def _complain(self, number: int, error: Exception) -> None:
        line = f"trial {number}: the storage refused a value: {type(error).__name__}: {error}"
        self._complaints.append(line[:300])

    def _note(self, pile: Pile, settled: Settled) -> None:
        over = [*(entry.claim for entry in pile.ended), *(release.claim for release in pile.releases)]
        lost = [entry.claim for entry in pile.begun if not settled.begun.get(entry.claim.token, True)]
        for claim in (*over, *lost):
            if self._held.get(claim.number) == claim:
                del self._held[claim.number]
        self._has_claimed = self._has_claimed or bool(pile.wishes)
        self._held |= {claim.number: claim for claim in settled.claims.values() if isinstance(claim, Claim)}

    # --- whether claims are still held ---

    def claim_of(self, number: int) -> Claim | None:
        """The claim on a trial that is still ours; asked of the storage only if others may have thought us dead."""
        self._confirm_claims()
        return self._held.get(number)

    def is_current(self, term: int) -> bool:
        """Whether nobody can have taken what was claimed in that term of the lease; safe to ask from any thread."""
        return self._lease.valid() and self._lease.term == term

    def _confirm_claims(self) -> None:
        while not self._lease.valid():
            self._lease.restore()
            kept = self._ledger.confirm(list(self._held.values()))
            for claim in self._held.values():
                self._storage.let_go(claim.trial_id)
            for claim in kept:
                self._storage.hold(claim.trial_id)
            self._held = {claim.number: claim for claim in kept}
            self._lease.confirmed()

    # --- the study ---

    def reap(self) -> list[int]:
        return self._ledger.reap()

    def write_results(self) -> None:
        self._results.write()
        self._checkpoints.close()

    def tidy(self) -> None:
        """After results: write the files that are older than a while, remove checkpoints that nobody needs."""
        self._results.maybe_write()
        self._checkpoints.tidy()

    def note_provenance(self, provenance: dict[str, Any]) -> None:
        """Keep what the trials run on, once for the study; each trial names it by its id."""
        key = f"{STUDY_ATTR}:provenance:{provenance_id(provenance)}"
        if key not in self._study.user_attrs:
            self._study.set_user_attr(key, provenance)

    def standing(self, *, last: bool = False) -> Standing:
        """Counts, the best trial, and how many trials in a row have failed since the study was last started.

        Before this agent's first claim the counts alone, unless it is the last look: loading the study would keep the
        claim waiting.
        """
        counts, ended = self._ledger.counts(), self._ledger.ended()
        if not (self._has_claimed or last or self._may_have_failed(counts)):
            return Standing(counts, ended=ended)
        history = self._history
        history.take(self._study.get_trials(deepcopy=False, states=FINISHED))
        if not self._loaded:
            self._loaded = True
            keep_all()
        return Standing(counts, _best(self._study), history.consecutive_failures, history.longest, ended)

    def _may_have_failed(self, counts: Counts) -> bool:
        """Whether so many trials have failed that another one may be one too many."""
        limit = self._config.optuna.max_consecutive_failures
        return bool(limit) and counts.failed >= limit

    def keeps_ready(self) -> bool:
        """Whether trials that were claimed ahead stay: they may begin, and no other agent needs them."""
        left = self._ledger.left(self._ledger.counts())
        return self._ledger.ended() is None and (left is None or left > 0 or self._ledger.is_alone())


def _beginning(entry: Begun) -> Beginning:
    slot = entry.slot
    return Beginning(entry.claim, slot.index, slot.label, slot.gpu_share, entry.since)


def _finish(claim: Claim, result: Result) -> Finish:
    return Finish(claim, TrialState[result.state], result.values, result.record, result.reports)


def _best(study: optuna.Study) -> tuple[int, float] | None:
    if len(study.directions) != 1:
        return None
    try:
        trial = study.best_trial
    except ValueError:
        return None
    return trial.number, float(trial.values[0])
