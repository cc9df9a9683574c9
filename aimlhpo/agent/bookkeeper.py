"""The storage side of an agent's work; every method runs in the clerk's thread and is safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import Trial, TrialState

from aimlhpo.agent.pruning import Pruning
from aimlhpo.agent.records import provenance_id, refusal
from aimlhpo.asha import Promotion
from aimlhpo.backends import OwnedStorage
from aimlhpo.backends.views import for_sampler
from aimlhpo.checkpoints import Checkpoints
from aimlhpo.constraints import holds
from aimlhpo.counts import Counts, count
from aimlhpo.errors import StudyFailed
from aimlhpo.history import consecutive_failures, longest
from aimlhpo.ledger import Claim, Ledger, Nothing
from aimlhpo.outbox import Result
from aimlhpo.patience import is_outage
from aimlhpo.protocol import Assignment, Decision, Report, Suggested, SuggestRequest
from aimlhpo.records import CONSTRAINTS
from aimlhpo.results import ResultsWriter
from aimlhpo.sampling import attach
from aimlhpo.space import SearchSpace
from aimlhpo.stopping import Ended, Look
from aimlhpo.storage import STUDY_ATTR
from aimlhpo.strategies import reseed

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config
    from aimlhpo.devices import Slot
    from aimlhpo.leases import Lease


@dataclass
class Work:
    """A claimed trial with everything that a worker needs to run it."""

    claim: Claim
    assignment: Assignment


@dataclass(frozen=True)
class Standing:
    """The study as the bookkeeper last saw it."""

    counts: Counts = field(default_factory=Counts)
    best: tuple[int, float] | None = None
    failures: int = 0
    longest: float = 0.0
    ended: Ended | None = None


class Bookkeeper:
    """Claims, samples, reports, decides, finishes and releases for one agent."""

    def __init__(
        self, config: Config, study: optuna.Study, storage: OwnedStorage, ledger: Ledger, lease: Lease
    ) -> None:
        self._config, self._study, self._ledger, self._lease = config, study, ledger, lease
        self._storage = storage
        self._space = SearchSpace.from_config(config)
        self._results, self._checkpoints = ResultsWriter(study, config), Checkpoints(study, config)
        self._signed = study.user_attrs[STUDY_ATTR]
        self._held: dict[int, tuple[Claim, Trial]] = {}
        self._best = _best(study)
        self._reported = config.optuna.reported_metric
        self._pruning = Pruning(study, self._reported)
        self._promotion = Promotion.of(study, self._reported)
        self._sampled = for_sampler(study, pauses=self._promotion is not None)
        self._at_stop, self._look = config.optuna.at_stop, Look(ledger.ended)

    @property
    def started(self) -> float:
        """When the study was last started, in seconds since the epoch."""
        return float(self._signed["started"])

    # --- claiming ---

    def prepare(self, slot: Slot, token: str) -> Work | Nothing:
        """Claim the next trial and sample its parameters."""
        claim = self._ledger.claim(slot.index, slot.label, token, slot.gpu_share)
        if isinstance(claim, Nothing):
            return claim
        trial = attach(self._sampled, claim.trial_id)
        self._held[claim.number] = (claim, trial)
        seed = self.seed_of(claim.number)
        reseed(self._study.sampler, seed)
        values = self._sample(claim, trial)
        return Work(claim, self._assignment(claim, values, seed))

    def _sample(self, claim: Claim, trial: Trial) -> dict[str, Any]:
        try:
            with self._storage.batch():
                return self._space.suggest(trial)
        except Exception as error:
            if is_outage(error):
                raise
            self.release(claim, "not sampled", 0.0)
            sampler = type(self._study.sampler).__name__
            raise StudyFailed(f"{sampler} cannot suggest values for trial {claim.number}: {error!r}") from error

    def seed_of(self, number: int) -> int:
        """A trial's own seed, from the study's and its number: the same in every attempt, another for each trial."""
        return int(np.random.SeedSequence([self._signed["seed"], number]).generate_state(1)[0] % 2**31)

    def _assignment(self, claim: Claim, values: dict[str, Any], seed: int) -> Assignment:
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
            seed=seed,
            checkpoint_dir=str(self._config.paths.checkpoint(claim.number)),
            user_attrs=frozen.user_attrs,
            intermediate_values=frozen.intermediate_values,
            reports=self._reported is not None,
            strict_pruning=self._config.optuna.pruning == "strict",
            pause=self._promotion.pause(frozen) if self._promotion is not None else None,
        )

    # --- while a trial runs ---

    def report(self, reports: Sequence[Report]) -> Decision:
        """Write a trial's reports, in order, and decide on the last; a trial that was lost had better end."""
        number, step = reports[-1].number, reports[-1].step
        if not self._owns(number):
            return Decision(number, step, prune=True)
        claim, _ = self._held[number]
        with self._storage.batch():
            for report in reports:
                self._storage.set_trial_intermediate_value(claim.trial_id, report.step, report.value)
            prune = self._pruning.decide(claim.trial_id, [report.step for report in reports])
        return Decision(number, step, prune or self._ends_with_study())

    def _ends_with_study(self) -> bool:
        """Whether running trials are to give up because a rule has ended the study."""
        return self._at_stop == "prune" and self._look.ended()

    def suggest(self, request: SuggestRequest) -> Suggested:
        """Answer a suggest call for a parameter that the YAML does not declare."""
        if not self._owns(request.number):
            return Suggested(error=RuntimeError("this trial has been given to another worker"))
        _, trial = self._held[request.number]
        try:
            return Suggested(getattr(trial, request.method)(**request.arguments))
        except (ValueError, TypeError) as error:
            return Suggested(error=error)

    def set_user_attr(self, number: int, key: str, value: Any) -> None:
        if self._owns(number):
            self._storage.set_trial_user_attr(self._held[number][0].trial_id, key, value)

    def _owns(self, number: int) -> bool:
        """Whether the trial is still ours; asked of the storage only if others may have thought us dead."""
        if not self._lease.valid():
            self._lease.restore()
            kept = self._ledger.confirm([claim for claim, _ in self._held.values()])
            for claim, _ in self._held.values():
                self._storage.let_go(claim.trial_id)
            for claim in kept:
                self._storage.hold(claim.trial_id)
            self._held = {claim.number: self._held[claim.number] for claim in kept}
        return number in self._held

    # --- endings ---

    def finish(self, claim: Claim, result: Result) -> bool:
        """Write a trial's result. False if the claim was lost: the result is dropped."""
        written = self._write(claim, result)
        self._held.pop(claim.number, None)
        if written:
            self._note_best(result)
            self._results.maybe_write()
            self._checkpoints.tidy()
        return written

    def _write(self, claim: Claim, result: Result) -> bool:
        state = TrialState[result.state]
        try:
            return self._ledger.finish(claim, state, result.values, result.record, result.reports)
        except Exception as error:
            if is_outage(error):
                raise
            refused = {
                **result.record,
                "metrics": {},
                "updates": {},
                "cause": refusal(error),
                "error": str(error)[:2000],
            }
            return self._ledger.finish(claim, TrialState.FAIL, None, refused)

    def release(self, claim: Claim, cause: str, seconds: float) -> bool:
        self._held.pop(claim.number, None)
        return self._ledger.release(claim, cause, seconds)

    def reap(self) -> list[int]:
        return self._ledger.reap()

    def write_results(self) -> None:
        self._results.write()
        self._checkpoints.close()

    # --- the study ---

    def note_provenance(self, provenance: dict[str, Any]) -> None:
        """Keep what the trials run on, once for the study; each trial names it by its id."""
        key = f"{STUDY_ATTR}:provenance:{provenance_id(provenance)}"
        if key not in self._study.user_attrs:
            self._study.set_user_attr(key, provenance)

    def standing(self) -> Standing:
        """Counts, the best trial, and how many trials in a row have failed since the study was last started."""
        trials = self._study.get_trials(deepcopy=False)
        failures = consecutive_failures(trials, self.started)
        return Standing(count(trials), self._best, failures, longest(trials), self._ledger.ended())

    def _note_best(self, result: Result) -> None:
        feasible = result.state == "COMPLETE" and holds(result.record.get(CONSTRAINTS, {}))
        if feasible and result.values is not None and len(result.values) == 1:
            value = result.values[0]
            better = max if self._config.optuna.direction[0] == "maximize" else min
            if self._best is None or better(value, self._best[1]) != self._best[1]:
                self._best = (result.number, value)


def _best(study: optuna.Study) -> tuple[int, float] | None:
    if len(study.directions) != 1:
        return None
    try:
        trial = study.best_trial
    except ValueError:
        return None
    return trial.number, float(trial.values[0])
