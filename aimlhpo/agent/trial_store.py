"""What is kept with a trial when it ends.
Whether a trial should be pruned: the pruner asked about batches of reports, by one of several metrics.
From a claim to all that a worker needs: the trial's parameters are sampled, and put into the configuration.
The storage side of an agent's work; every method runs in the clerk's thread and is safe to repeat.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from aimlhpo.agent.request_buffer import BegunTrial, PendingRequests, RequestBuffer
from aimlhpo.agent.storage_thread import keep_all
from aimlhpo.ledger.checkpoints import Checkpoints
from aimlhpo.ledger.ledger import Ledger
from aimlhpo.ledger.outbox import Result
from aimlhpo.ledger.requests import Beginning, Claim, Finish, LedgerAnswer, LedgerBatch
from aimlhpo.objective.messages import (
    COMPLETE,
    FAIL,
    PAUSED,
    PRUNED,
    Assignment,
    Decision,
    Outcome,
    Report,
    Suggested,
    SuggestRequest,
)
from aimlhpo.results.table import ResultsWriter
from aimlhpo.search.asha import ASHA
from aimlhpo.search.sampling import Sampling
from aimlhpo.search.stopping import StopReason, ThrottledCheck
from aimlhpo.storage.base import Operation
from aimlhpo.storage.owned import OwnedStorage
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.trials import CONSTRAINTS, FINISHED, Counts, History
from aimlhpo.storage.views import one_metric

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.ledger.leases import Lease

STATES = {COMPLETE: "COMPLETE", PRUNED: "PRUNED", PAUSED: "WAITING", FAIL: "FAIL"}


def refused_record(record: dict[str, Any], error: Exception) -> dict[str, Any]:
    """What is kept with a trial whose result the storage does not take."""
    cause = f"exception: the storage refused the result: {type(error).__name__}"
    return {**record, "metrics": {}, "updates": {}, "cause": cause, "error": str(error)[:2000]}


def provenance_id(provenance: dict[str, Any]) -> str:
    """A short name for what trials run on; the study keeps the whole under it, once."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]


def make_result(
    agent: str, claim: Claim, outcome: Outcome, where: dict[str, Any], reports: list[Report], seed: int
) -> Result:
    """The trial's end as it is stored; `where` says on what it ran."""
    record = {
        "metrics": outcome.metrics,
        "seconds": round(claim.seconds_before + outcome.seconds, 3),
        "gpu_seconds": round(claim.gpu_seconds_before + outcome.seconds * where["gpus"], 3),
        "cause": outcome.cause,
        "error": outcome.error,
        "updates": outcome.updates,
        "unread": outcome.unread,
        "seed": seed,
        "attempts": claim.attempt,
        **where,
    }
    if outcome.constraints:
        record[CONSTRAINTS] = outcome.constraints
    return Result(
        agent=agent,
        trial_id=claim.trial_id,
        number=claim.number,
        token=claim.token,
        state=STATES[outcome.state],
        values=outcome.values,
        record=record,
        reports=[(report.step, report.value) for report in reports],
    )


_BY_RUNG = (ASHA, SuccessiveHalvingPruner, HyperbandPruner)


class Pruning:
    """Asks the study's pruner.

    A pruner with rungs compares each trial once at each rung, by the report that reaches it. It is therefore asked
    about every report of a batch, not the last alone, and what it has decided stays: asked again later it would look
    to the next rung only.
    """

    def __init__(self, study: optuna.Study, metric: int | None) -> None:
        self._asked = not isinstance(study.pruner, NopPruner) and metric is not None
        self._study = one_metric(study, metric or 0)
        self._by_rung = _has_rungs(study.pruner)
        self._given_up: set[int] = set()

    def decide(self, trial_id: int, steps: Iterable[int]) -> bool:
        """Whether to give the trial up, seen from its reports at `steps`, which are stored."""
        if not self._asked or trial_id in self._given_up:
            return self._asked
        ordered = sorted(set(steps))
        if not self._by_rung:
            return self._prune(trial_id, None)
        if any(self._prune(trial_id, step) for step in ordered):
            self._given_up.add(trial_id)
        return trial_id in self._given_up

    def _prune(self, trial_id: int, step: int | None) -> bool:
        trial = self._study._storage.get_trial(trial_id)
        return self._study.pruner.prune(self._study, trial if step is None else _until(trial, step))


def _has_rungs(pruner: BasePruner) -> bool:
    return isinstance(pruner, _BY_RUNG) or isinstance(getattr(pruner, "_wrapped_pruner", None), _BY_RUNG)


def _until(trial: FrozenTrial, step: int) -> FrozenTrial:
    """The trial as it was after its report at `step`."""
    then = copy.copy(trial)
    then.intermediate_values = {at: value for at, value in trial.intermediate_values.items() if at <= step}
    return then


@dataclass
class PreparedTrial:
    """A claimed trial with everything that a worker needs to run it; `term` is the lease's at the claim."""

    claim: Claim
    assignment: Assignment
    term: int


class TrialBuilder:
    """Prepares trials for one agent; every method runs in the clerk's thread and is safe to repeat."""

    def __init__(self, config: Config, study: optuna.Study, storage: OwnedStorage) -> None:
        self._config, self._storage = config, storage
        self._sampling = Sampling(config, study)
        self._space, self._promotion = self._sampling.space, self._sampling.promotion
        self._reported = config.optuna.reported_metric
        self._trials: dict[int, Trial] = {}

    def prepare(self, claims: Sequence[Claim], term: int) -> list[PreparedTrial]:
        """Sample the parameters of all these trials here, and write them at once. Raises StudyFailed."""
        with self._storage.batch():
            values = [self._sampling.sample(claim.trial_id, claim.number) for claim in claims]
        return [self.work(claim, sampled, term) for claim, sampled in zip(claims, values, strict=True)]

    def work(self, claim: Claim, values: dict[str, Any], term: int) -> PreparedTrial:
        """A trial whose parameters are known."""
        return PreparedTrial(claim, self._assignment(claim, values), term)

    def suggest(self, claim: Claim, request: SuggestRequest) -> Suggested:
        """Answer a suggest call for a parameter that the YAML does not declare."""
        try:
            return Suggested(getattr(self._trial(claim), request.method)(**request.arguments))
        except (ValueError, TypeError) as error:
            return Suggested(error=error)

    def _trial(self, claim: Claim) -> Trial:
        if claim.number not in self._trials:
            self._trials[claim.number] = self._sampling.attach_again(claim.trial_id, claim.number)
        return self._trials[claim.number]

    def forget(self, number: int) -> None:
        """The trial is over."""
        self._trials.pop(number, None)

    def _assignment(self, claim: Claim, values: dict[str, Any]) -> Assignment:
        frozen = self._storage.get_trial(claim.trial_id)
        parameters = self._space.parameters
        return Assignment(
            number=claim.number,
            attempt=claim.attempt,
            conf=self._space.assign(self._config.conf(), values),
            values=values,
            names={parameter.key: parameter.name for parameter in parameters},
            settings={parameter.name: dict(parameter.settings) for parameter in parameters},
            plain=[parameter.name for parameter in parameters if parameter.path is None],
            seed=self._sampling.seed_of(claim.number),
            checkpoint_dir=str(self._config.paths.checkpoint(claim.number)),
            user_attrs=frozen.user_attrs,
            intermediate_values=frozen.intermediate_values,
            reports=self._reported is not None,
            strict_pruning=self._config.optuna.pruning == "strict",
            pause=self._promotion.pause(frozen) if self._promotion is not None else None,
        )


@dataclass(frozen=True)
class StudySnapshot:
    """The study as the bookkeeper last saw it."""

    counts: Counts = field(default_factory=Counts)
    best: tuple[int, float] | None = None
    failures: int = 0
    longest: float = 0.0
    ended: StopReason | None = None


@dataclass(frozen=True)
class BatchResult:
    """What came of a turn: the ledger's answers, pruning decisions, what was refused, and trials that are ready.

    `term` is the lease's when the claims were made, `seconds` is what the turn took.
    """

    settled: LedgerAnswer
    decisions: list[Decision]
    complaints: list[str]
    works: list[PreparedTrial]
    term: int
    seconds: float


class BatchTask:
    """A clerk's job: all that lies in the tray. When it is repeated, it takes along what has come in since."""

    def __init__(self, tray: RequestBuffer, work: Callable[[PendingRequests], BatchResult]) -> None:
        self._tray, self._work = tray, work
        self._pile = PendingRequests()

    def __call__(self) -> BatchResult:
        self._pile.take(self._tray.empty())
        return self._work(self._pile)


class TrialStore:
    """Claims, reports, decides, finishes and releases for one agent."""

    def __init__(
        self,
        config: Config,
        study: optuna.Study,
        storage: OwnedStorage,
        ledger: Ledger,
        lease: Lease,
        preparing: TrialBuilder,
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
        self._at_stop, self._look = config.optuna.at_stop, ThrottledCheck(ledger.ended)

    # --- a turn ---

    def turn(self, pile: PendingRequests) -> BatchResult:
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
        settled = self._settle(LedgerBatch(finishes, pile.releases, pile.wishes, along, beginnings))
        self._note(pile, settled)
        works = [self._preparing.work(entry.claim, entry.suggestion.values, entry.term) for entry in pile.sampled]
        return BatchResult(settled, decisions, self._complaints, works, term, time.monotonic() - begun)

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

    def _add_attributes(self, pile: PendingRequests, along: dict[int, list[Operation]]) -> None:
        with self._storage.gather() as operations:
            for attribute in pile.attributes:
                if attribute.number in self._held:
                    trial_id = self._held[attribute.number].trial_id
                    self._storage.set_trial_user_attr(trial_id, attribute.key, attribute.value)
        for operation in operations:
            along.setdefault(operation.trial_id, []).append(operation)

    def _add_suggestions(self, pile: PendingRequests, along: dict[int, list[Operation]]) -> None:
        for entry in pile.sampled:
            if self._held.get(entry.claim.number) == entry.claim:
                with self._storage.gather() as operations:
                    for operation in entry.suggestion.operations:
                        operation.replay(self._storage)
                along.setdefault(entry.claim.trial_id, []).extend(operations)

    def _settle(self, turn: LedgerBatch) -> LedgerAnswer:
        """Where the storage refuses a value, that costs its trial, not the others."""
        try:
            return self._ledger.settle(turn)
        except Exception as error:
            self._storage.forget(turn.operations)
            if is_outage(error):
                raise
            parts = list(turn.parts())
            if len(parts) > 1:
                return LedgerAnswer.of([self._settle(part) for part in parts])
            return self._without_refused(turn, error)

    def _without_refused(self, turn: LedgerBatch, error: Exception) -> LedgerAnswer:
        if turn.finishes:
            (finish,) = turn.finishes
            failed = Finish(finish.claim, TrialState.FAIL, None, refused_record(finish.record, error))
            return self._ledger.settle(LedgerBatch([failed]))
        if not (turn.along or turn.beginnings):
            raise error
        numbers = {claim.trial_id: claim.number for claim in self._held.values()}
        for trial_id in (*turn.along, *(beginning.claim.trial_id for beginning in turn.beginnings)):
            self._complain(numbers[trial_id], error)
        return LedgerAnswer()

    def _complain(self, number: int, error: Exception) -> None:
        line = f"trial {number}: the storage refused a value: {type(error).__name__}: {error}"
        self._complaints.append(line[:300])

    def _note(self, pile: PendingRequests, settled: LedgerAnswer) -> None:
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

    def standing(self, *, last: bool = False) -> StudySnapshot:
        """Counts, the best trial, and how many trials in a row have failed since the study was last started.

        Before this agent's first claim the counts alone, unless it is the last look: loading the study would keep the
        claim waiting.
        """
        counts, ended = self._ledger.counts(), self._ledger.ended()
        if not (self._has_claimed or last or self._may_have_failed(counts)):
            return StudySnapshot(counts, ended=ended)
        history = self._history
        history.take(self._study.get_trials(deepcopy=False, states=FINISHED))
        if not self._loaded:
            self._loaded = True
            keep_all()
        return StudySnapshot(counts, _best(self._study), history.consecutive_failures, history.longest, ended)

    def _may_have_failed(self, counts: Counts) -> bool:
        """Whether so many trials have failed that another one may be one too many."""
        limit = self._config.optuna.max_consecutive_failures
        return bool(limit) and counts.failed >= limit

    def keeps_ready(self) -> bool:
        """Whether trials that were claimed ahead stay: they may begin, and no other agent needs them."""
        left = self._ledger.left(self._ledger.counts())
        return self._ledger.ended() is None and (left is None or left > 0 or self._ledger.is_alone())


def _beginning(entry: BegunTrial) -> Beginning:
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
