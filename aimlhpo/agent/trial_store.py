"""The storage thread's side of an agent: it claims, samples, stores reports, decides on pruning, finishes and releases.

The main thread's side is `aimlhpo.agent.storage_client`. What crosses from there to here is a batch of requests
(`Request`); what comes back is a `BatchResult`, or a `StudySnapshot`: values that nobody changes afterwards. All
classes with behaviour here (`Pruning`, `TrialBuilder`, `TrialStore`) run in the storage thread alone, and every method
of theirs is safe to repeat, as it is while the storage is away.
"""

from __future__ import annotations

import copy
import gc
import pickle
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial

from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.checkpoints import Checkpoints
from aimlhpo.ledger.ledger import CurrentConfig, Ledger
from aimlhpo.ledger.requests import Beginning, Claim, ClaimRequest, LedgerAnswer, LedgerBatch, Release, Result
from aimlhpo.objective.messages import (
    Answer,
    Assignment,
    Decision,
    ReadRequest,
    Report,
    SetAttribute,
    SuggestRequest,
)
from aimlhpo.results.best import best_trials
from aimlhpo.results.table import ResultsWriter
from aimlhpo.search.rungs import ASHA
from aimlhpo.search.sampling import Sampling, Suggestion, one_metric
from aimlhpo.search.stopping import StopReason, ThrottledCheck
from aimlhpo.space.model_paths import substitute
from aimlhpo.storage.attributes import PROVENANCE, set_study_attribute, study_attributes
from aimlhpo.storage.base import FINISHED, Counts, Operation, OwnedStorage
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.trials import CONFIRMED, LongestTrial

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config
    from aimlhpo.ledger.leases import Lease


@dataclass(frozen=True)
class SampledTrial:
    """What the sampling process suggests for a trial that was claimed in this term of the lease."""

    claim: Claim
    suggestion: Suggestion
    term: int


Request = Report | SetAttribute | Beginning | Result | Release | ClaimRequest | SampledTrial
"""What the main thread may ask for; those that have gathered are done in one batch."""


@dataclass(frozen=True)
class PreparedTrial:
    """A claimed trial with everything that a worker needs to run it; `term` is the lease's at the claim."""

    claim: Claim
    assignment: Assignment
    term: int


@dataclass(frozen=True)
class BatchResult:
    """What came of a batch.

    Attributes:
        answer: the ledger's answers.
        decisions: on pruning, for each trial that has reported.
        complaints: lines for the user, about values that the storage has refused.
        prepared: trials that are ready to run.
        term: the lease's when the claims were made.
        seconds: what the batch took.
        lost: the tokens of claims that were taken from this agent, as of now.
    """

    answer: LedgerAnswer
    decisions: Sequence[Decision]
    complaints: Sequence[str]
    prepared: Sequence[PreparedTrial]
    term: int
    seconds: float
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StudySnapshot:
    """The study as it was last read.

    Attributes:
        best: (number, value) of the best trial; None with several metrics, or before there is one.
        longest: seconds that the longest complete trial took.
        ended: the stopping rule that has ended the study.
        lost: the tokens of claims that were taken from this agent, as where the budget has become smaller.
    """

    counts: Counts = field(default_factory=Counts)
    best: tuple[int, float] | None = None
    longest: float = 0.0
    ended: StopReason | None = None
    lost: frozenset[str] = frozenset()


_BY_RUNG = (ASHA, SuccessiveHalvingPruner, HyperbandPruner)


class Pruning:
    """Asks the study's pruner about batches of reports, by the metric at position `metric`; None: nothing is pruned.

    A pruner with rungs compares each trial once at each rung, by the report that reaches it. It is therefore asked
    about every report of a batch, not about the last alone, and what it has decided stays: asked again later it would
    look at the next rung only.

    Runs in: the storage thread.
    """

    def __init__(self, study: optuna.Study, metric: int | None) -> None:
        pruner = study.pruner
        self._active = not isinstance(pruner, NopPruner) and metric is not None
        self._study = one_metric(study, metric or 0)
        self._by_rung = isinstance(pruner, _BY_RUNG) or isinstance(getattr(pruner, "_wrapped_pruner", None), _BY_RUNG)
        self._pruned: set[int] = set()

    def decide(self, trial_id: int, steps: Iterable[int]) -> bool:
        """Whether to prune the trial, seen from its reports at `steps`, which are stored."""
        if not self._active or trial_id in self._pruned:
            return self._active
        storage, pruner = self._study._storage, self._study.pruner
        if not self._by_rung:
            return pruner.prune(self._study, storage.get_trial(trial_id))
        for step in sorted(set(steps)):
            trial = copy.copy(storage.get_trial(trial_id))  # read each time: pruners note the rungs with the trial
            trial.intermediate_values = {at: value for at, value in trial.intermediate_values.items() if at <= step}
            if pruner.prune(self._study, trial):
                self._pruned.add(trial_id)
                return True
        return False


class TrialBuilder:
    """Makes a claim into all that a worker needs: samples the parameters, and puts them into the configuration.

    Runs in: the storage thread.
    """

    def __init__(self, config: Config, study: optuna.Study, storage: OwnedStorage) -> None:
        self._conf, self._paths, self._storage = config.conf(), config.paths, storage
        self._reports = config.optuna.reported_metric is not None
        self._strict = config.optuna.pruning == "strict"
        self._sampling = Sampling(config, study)
        self._distributions = {name: distribution_to_json(d) for name, d in config.space.distributions.items()}
        self._attached: dict[int, Trial] = {}

    def sample(self, claims: Sequence[Claim]) -> list[dict[str, Any]]:
        """Sample the parameters of all these trials here, and write them at once. Raises StudyFailed."""
        with self._storage.batch():
            return [self._sampling.sample(claim.trial_id, claim.number) for claim in claims]

    def build(self, claim: Claim, values: dict[str, Any], term: int) -> PreparedTrial:
        """A trial whose parameters are known."""
        stored = self._storage.get_trial(claim.trial_id)
        space, promotion = self._sampling.space, self._sampling.promotion
        confirms = stored.system_attrs.get(CONFIRMED)
        conf = space.assign(self._conf, values)
        if confirms is not None:
            conf = substitute(conf, dict.fromkeys(confirms["keys"], confirms["seed"]))
        assignment = Assignment(
            number=claim.number,
            attempt=claim.attempt,
            conf=conf,
            values=values,
            names={parameter.key: parameter.name for parameter in space.parameters},
            settings={parameter.name: dict(parameter.settings) for parameter in space.parameters},
            plain=[parameter.name for parameter in space.parameters if parameter.path is None],
            seed=self._sampling.seed_of(claim.number) if confirms is None else confirms["seed"],
            checkpoint_dir=str(self._paths.checkpoint(claim.number)),
            user_attrs=stored.user_attrs,
            intermediate_values=stored.intermediate_values,
            reports=self._reports,
            strict_pruning=self._strict,
            pause=promotion.pause(stored) if promotion is not None else None,
            distributions=self._distributions,
            trial_id=claim.trial_id,
        )
        return PreparedTrial(claim, assignment, term)

    def suggest(self, claim: Claim, request: SuggestRequest) -> Any:
        """The value for a suggest call of a parameter that the YAML does not declare. Raises what Optuna raises."""
        if claim.number not in self._attached:
            self._attached[claim.number] = self._sampling.attach_again(claim.trial_id, claim.number)
        return getattr(self._attached[claim.number], request.method)(**request.arguments)

    def forget(self, number: int) -> None:
        """This attempt at the trial is over, or others may have gone on with the trial meanwhile."""
        self._attached.pop(number, None)


class TrialStore:
    """Claims, samples, reports, decides, finishes and releases trials for one agent.

    It remembers which claims the agent holds. Where the agent was silent for so long that others may have taken it for
    dead, it first asks the ledger which of them are still held.

    Runs in: the storage thread.
    """

    def __init__(
        self, current: CurrentConfig, study: optuna.Study, storage: OwnedStorage, ledger: Ledger, lease: Lease
    ) -> None:
        config = current.config
        self._current, self._study, self._storage = current, study, storage
        self._ledger, self._lease = ledger, lease
        self._builder = TrialBuilder(config, study, storage)
        self._pruning = Pruning(study, config.optuna.reported_metric)
        self._ended = ThrottledCheck(lambda: ledger.look()[1])
        self._results, self._checkpoints = ResultsWriter(study, config), Checkpoints(study, config)
        self._longest = LongestTrial(config.section)
        self._held: dict[int, Claim] = {}
        self._lost: frozenset[str] = frozenset()
        self._version = current.version
        self._complaints: list[str] = []
        self._has_claimed = self._has_history = False

    # --- a batch ---

    def process(self, requests: Sequence[Request]) -> BatchResult:
        """Do all that has gathered, in one write."""
        started = time.monotonic()
        self._confirm_claims()
        term, self._complaints = self._lease.term, []
        by_type: dict[type[Request], list[Any]] = defaultdict(list)
        for request in requests:
            by_type[type(request)].append(request)
        results: list[Result] = by_type[Result]
        sampled: list[SampledTrial] = by_type[SampledTrial]

        writes: dict[int, list[Operation]] = defaultdict(list)
        decisions = self._take_reports(by_type[Report], {result.number for result in results}, writes)
        with self._storage.gather() as operations:
            storage = self._storage
            for attribute in by_type[SetAttribute]:
                if attribute.number in self._held:
                    set_one = storage.set_trial_system_attr if attribute.system else storage.set_trial_user_attr
                    set_one(self._held[attribute.number].trial_id, attribute.key, attribute.value)
        for operation in operations:
            writes[operation.trial_id].append(operation)
        for trial in sampled:
            if self._held.get(trial.claim.number) == trial.claim:
                with self._storage.gather() as operations:
                    for operation in trial.suggestion.operations:
                        operation.replay(self._storage)
                writes[trial.claim.trial_id] += operations

        beginnings = [begun for begun in by_type[Beginning] if self._held.get(begun.claim.number) == begun.claim]
        batch = LedgerBatch(results, by_type[Release], by_type[ClaimRequest], writes, beginnings)
        answer = self._write(batch)
        self._note(batch, answer)
        prepared = [self._builder.build(trial.claim, trial.suggestion.values, trial.term) for trial in sampled]
        seconds = time.monotonic() - started
        return BatchResult(answer, decisions, self._complaints, prepared, term, seconds, self._lost)

    def _take_reports(
        self, reports: Iterable[Report], ended: set[int], writes: dict[int, list[Operation]]
    ) -> list[Decision]:
        """Add the reports to what is written, and decide on each trial, seen from its last one.

        The result of a trial that has ended holds all its reports. A trial that others have claimed is told to stop.
        """
        by_trial: dict[int, list[Report]] = defaultdict(list)
        for report in reports:
            if report.number not in ended:
                by_trial[report.number].append(report)
        decisions = []
        for number, batch in by_trial.items():
            prune = number not in self._held
            if not prune:
                trial_id = self._held[number].trial_id
                try:
                    with self._storage.gather() as operations:
                        for report in batch:
                            self._storage.set_trial_intermediate_value(trial_id, report.step, report.value)
                        prune = self._pruning.decide(trial_id, [report.step for report in batch])
                    writes[trial_id] += operations
                except Exception as error:
                    if is_outage(error):
                        raise
                    self._complaints.append(_refused(number, error))
                prune = prune or (self._current.config.optuna.at_stop == "prune" and self._ended.ended())
            decisions.append(Decision(number, batch[-1].step, prune))
        return decisions

    def _write(self, batch: LedgerBatch) -> LedgerAnswer:
        """Write the batch. Where the storage refuses a value, that costs its trial, not the others."""
        operations = [operation for written in batch.writes.values() for operation in written]
        try:
            if batch.results or batch.releases or batch.claim_requests or batch.beginnings:
                return self._ledger.process(batch)
            self._storage.backend.apply(operations)  # nothing to decide: without the ledger's lock
            return LedgerAnswer()
        except Exception as error:
            self._storage.forget(operations)
            if is_outage(error):
                raise
            parts = list(batch.parts())
            if len(parts) > 1:
                return LedgerAnswer.of([self._write(part) for part in parts])
            return self._write_without_refused(batch, error)

    def _write_without_refused(self, batch: LedgerBatch, error: Exception) -> LedgerAnswer:
        """What is left of a batch of one trial whose value the storage has refused: a result becomes a failure."""
        if batch.results:
            (result,) = batch.results
            cause = f"exception: the storage refused the result: {type(error).__name__}"
            record = {**result.record, "metrics": {}, "updates": {}, "cause": cause, "error": str(error)[:2000]}
            failed = replace(result, state="FAIL", values=None, record=record, reports=[])
            return self._ledger.process(LedgerBatch([failed]))
        if not (batch.writes or batch.beginnings):
            raise error
        numbers = {claim.trial_id: claim.number for claim in self._held.values()}
        for trial_id in (*batch.writes, *(beginning.claim.trial_id for beginning in batch.beginnings)):
            self._complaints.append(_refused(numbers[trial_id], error))
        return LedgerAnswer()

    def _note(self, batch: LedgerBatch, answer: LedgerAnswer) -> None:
        """Keep the list of held claims up to date."""
        lost = [begun.claim for begun in batch.beginnings if not answer.begun.get(begun.claim.token, True)]
        self._lost |= {claim.token for claim in lost}
        over: list[Claim | Result] = [*batch.results, *(release.claim for release in batch.releases), *lost]
        for each in over:
            held = self._held.get(each.number)
            if held is not None and held.token == each.token:
                del self._held[each.number]
                self._builder.forget(each.number)
        self._has_claimed = self._has_claimed or bool(batch.claim_requests)
        new = {claim.number: claim for claim in answer.claims.values() if isinstance(claim, Claim)}
        # A trial that is held under another token was given back meanwhile: whoever here still runs it must end.
        replaced = (self._held[number] for number in new if number in self._held)
        self._lost |= {claim.token for claim in replaced if claim.token != new[claim.number].token}
        self._held |= new

    # --- other requests on trials ---

    def prepare(self, claims: Sequence[Claim], term: int) -> list[PreparedTrial]:
        """Sample the parameters of these trials here. Raises StudyFailed; the trials are given back then."""
        try:
            values = self._builder.sample(claims)
        except StudyFailed:
            self.process([Release(claim, None) for claim in claims])
            raise
        return [self._builder.build(claim, sampled, term) for claim, sampled in zip(claims, values, strict=True)]

    def answer(self, request: SuggestRequest | ReadRequest) -> tuple[Answer, str | None]:
        """The answer to a worker, and a line for the user where the storage has refused a parameter.

        What it refuses for good costs the value, not the agent.
        """
        complaint = None
        try:
            self._confirm_claims()
            claim = self._held.get(request.number)
            if claim is None:
                raise RuntimeError("this trial has been given to another worker")
            if isinstance(request, SuggestRequest):
                value = self._builder.suggest(claim, request)
            else:
                value = pickle.dumps(self._read(claim, request.what))
            return Answer(value, question=request.question), None
        except (ValueError, TypeError, RuntimeError) as error:  # Optuna's own, which the objective is to see
            if is_outage(error):
                raise
            refused: Exception = error
        except Exception as error:
            if is_outage(error):
                raise
            refused, complaint = RuntimeError("the storage has refused this"), _refused(request.number, error)
            if isinstance(request, SuggestRequest):
                refused = RuntimeError(f"the storage does not take the parameter {request.arguments['name']!r}")
        return Answer(error=refused, question=request.question), complaint

    def _read(self, claim: Claim, what: str) -> Any:
        """Raises what Optuna raises, such as ValueError for the best trial before one is complete."""
        if what == "trial":
            return self._storage.get_trial(claim.trial_id)
        return self._study.get_trials(deepcopy=False) if what == "trials" else getattr(self._study, what)

    def _confirm_claims(self) -> None:
        """Ask which claims are still held where others may have taken them: after a silence, and after a change."""
        before = {claim.token for claim in self._held.values()}
        while not self._lease.valid():
            self._lease.restore()
            self._keep_held()
            self._lease.confirmed()
        version = self._current.version
        if self._version != version:
            self._keep_held()
            self._lost |= before - {claim.token for claim in self._held.values()}
            self._version = version  # not before: where the storage is away meanwhile, this is done again

    def _keep_held(self) -> None:
        kept = self._ledger.confirm(list(self._held.values()))
        for claim in self._held.values():
            self._storage.let_go(claim.trial_id)
            self._builder.forget(claim.number)
        for claim in kept:
            self._storage.hold(claim.trial_id)
        self._held = {claim.number: claim for claim in kept}

    # --- the study ---

    def reap(self) -> list[int]:
        """Take over what dead agents have left behind; the numbers of the trials that are given back."""
        return self._ledger.reap()

    def keeps_ready(self) -> bool:
        """Whether trials that were claimed ahead stay: they may begin, and no other agent needs them."""
        counts, ended = self._ledger.look()
        left = self._ledger.left(counts)
        return ended is None and (left is None or left > 0 or self._ledger.is_alone())

    def note_provenance(self, provenance_id: str, provenance: dict[str, Any]) -> None:
        """Keep what the trials run on, once for the study; each trial names it by its id."""
        key = f"{PROVENANCE}{provenance_id}"
        if key not in study_attributes(self._study):
            set_study_attribute(self._study, key, provenance)

    def snapshot(self, *, last: bool = False) -> StudySnapshot:
        """The study as it is now.

        Before this agent's first claim the counts alone, unless it is the last look: loading the study would keep the
        claim waiting.
        """
        counts, ended = self._ledger.look()
        self._confirm_claims()
        if not (self._has_claimed or last):
            return StudySnapshot(counts, ended=ended)
        longest = self._longest.among(self._study.get_trials(deepcopy=False, states=FINISHED))
        if not self._has_history:
            self._has_history = True
            gc.freeze()  # spare the garbage collector the loaded study: looking through it stops all threads
        best = None
        if len(self._study.directions) == 1:
            best = next(((trial.number, float(trial.values[0])) for trial in best_trials(self._study)), None)
        return StudySnapshot(counts, best, longest, ended, self._lost)

    def tidy(self) -> None:
        """After results: write the files that are older than a while, remove checkpoints that nobody needs."""
        self._results.maybe_write()
        self._checkpoints.tidy()

    def write_results(self) -> None:
        """The same at the end, whatever their age."""
        self._results.write()
        self._checkpoints.close()


def _refused(number: int, error: Exception) -> str:
    return f"trial {number}: the storage refused a value: {type(error).__name__}: {error}"[:300]
