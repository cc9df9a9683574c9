"""What the workers do: `TrialDispatcher` gives trials to the slots, hears the workers, and deals with how trials end.

A trial's way through it: claimed by `StorageClient`, sent to a worker, its reports passed on, and at the end its
outcome made into the `Result` that the outbox keeps and the ledger finishes it with; or it is given back. All of this
runs in the agent's main thread.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from statistics import median
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.stop_requests import NODE_LOST
from aimlhpo.agent.trial_store import PreparedTrial
from aimlhpo.agent.worker_pool import KILLED_FOR_MEMORY, CurrentTrial, UnreadableMessage, WorkerSlot, WorkerState
from aimlhpo.config.fields import AUTO
from aimlhpo.errors import ObjectiveError, StudyFailed
from aimlhpo.ledger.checkpoints import newest_file
from aimlhpo.ledger.requests import NoTrial, Result
from aimlhpo.objective.base import OutcomeError
from aimlhpo.objective.messages import (
    COMPLETE,
    FAIL,
    PAUSED,
    PRUNED,
    Finished,
    LoadFailed,
    NodeLost,
    Outcome,
    ReadRequest,
    Ready,
    Report,
    SetAttribute,
    SuggestRequest,
)
from aimlhpo.space.constraints import constraint_values, parse_constraints
from aimlhpo.storage.attributes import INFEASIBLE
from aimlhpo.storage.trials import CONSTRAINTS

if TYPE_CHECKING:
    from aimlhpo.agent.packing import Packing
    from aimlhpo.agent.stop_requests import SignalTrap, StopRequest, Walltime
    from aimlhpo.agent.storage_client import StorageClient
    from aimlhpo.agent.worker_pool import WorkerPool
    from aimlhpo.ledger.leases import Election, Holder
    from aimlhpo.ledger.ledger import CurrentConfig

OUT_OF_MEMORY = "out of memory"
"""The cause in the outcome of a trial for which the GPU's memory was too small."""

TIMEOUT = "timeout"
"""The cause in the outcome of a trial that ran longer than `trial_timeout`."""

STATES = {COMPLETE: "COMPLETE", PRUNED: "PRUNED", PAUSED: "WAITING", FAIL: "FAIL"}
"""How a trial ended, as workers say it, and the name of Optuna's state for that."""

_OF_RANK = re.compile(r"^rank \d+: ")  # ahead of the cause where another rank than the worker has failed the trial
_RETRY_INTERVAL = 1.0  # seconds until a slot claims again when all that is left is running elsewhere
_SHARE_INTERVAL = 2.0  # seconds between two looks at whether others could run what was claimed ahead
_DEATH_INTERVAL = 0.5  # seconds between two looks for workers that died unheard
_SIGNAL_DELAY = 1.0  # seconds for a signal that has reached a worker to reach the agent, too
_SIGNAL_DELAY_OF_NODES = 3.0  # the same, for one that has reached another node
_MOST_EARLY_DEATHS = 3  # in a row, of the workers of one slot, while none of the agent's has ever been ready
_MOST_LATER_DEATHS = 20  # the same, where one has: then the objective can be loaded, and the deaths may be chance
_FEWEST_COMPLETE = 2  # trials in each slot, before the next ones are claimed ahead
_LONG = 20.0  # seconds

JUDGED = 16
"""Trials, the last ones to end, whose durations say how long a trial is."""


def claims_ahead(complete: int, slots: int, durations: Sequence[float]) -> bool:
    """Whether trials are claimed while others train, with `claim_ahead: auto`.

    A trial that is sampled later knows more results, but its slot is empty for some milliseconds. That is worth it at
    first, when samplers have little to go by, and for long trials, of which it is less than a hundredth.

    Args:
        complete: trials that are COMPLETE, of those that have ended in the agent.
        slots: how many the agent has.
        durations: seconds that the last trials took that have ended; none where they are not to count.
    """
    return complete >= _FEWEST_COMPLETE * slots and median(durations or [0.0]) < _LONG


class TrialDispatcher:
    """Keeps the slots busy for as long as trials may be started.

    Trials that are claimed ahead lie in one queue, as many as slots are busy: whichever slot is free first takes one.

    Args:
        holder: this agent, as it is stored with its trials.
        stop: where reasons to stop are looked up, and put.
        waiter: of all agents of the study, the one that waits where the last trials run elsewhere.
        packing: opens and closes slots; None where their number is fixed.

    Attributes:
        out_of_time: whether a slot got no more trials because the time left in the job is too short for one.

    Runs in: the main thread.
    """

    def __init__(
        self,
        current: CurrentConfig,
        holder: Holder,
        pool: WorkerPool,
        storage: StorageClient,
        stop: StopRequest,
        trap: SignalTrap,
        walltime: Walltime,
        waiter: Election,
        packing: Packing | None = None,
    ) -> None:
        config = current.config
        self._current, self._options, self._paths = current, config.optuna, config.paths
        self._constraints = parse_constraints(config.optuna.constraints)
        self._holder, self._pool, self._storage = holder, pool, storage
        self._stop, self._trap, self._walltime, self._waiter = stop, trap, walltime, waiter
        self._packing = packing
        self._complete, self._durations = 0, deque[float](maxlen=JUDGED)
        self._ready: deque[PreparedTrial] = deque()
        self._asked_ahead, self._has_started = 0, False
        self._next_share = self._next_death_check = 0.0
        self._checked_checkpoint = self._worker_was_ready = self.out_of_time = False

    # --- giving trials to slots ---

    def fill_slots(self) -> None:
        """Give each free slot a trial, or claim one for it; claim the next ones ahead, or give these back."""
        if self._packing is not None:
            self._packing.poll(self._may_start)
        for slot in self._pool.slots:
            if slot.closing and slot.retry_alone is None:
                if slot.state not in (WorkerState.BUSY, WorkerState.CLAIMING, WorkerState.RETIRED):
                    slot.end_worker()  # for certain, and now: others need the memory that it holds
                    slot.state = WorkerState.RETIRED
            elif slot.state is WorkerState.ENDED:
                self._start_worker(slot)
            elif self._is_free(slot):
                self._fill(slot)
        # Ahead only once a trial was started, after the last result was handed in: what the sampler sees is the same
        # each time. All that is missing: a worker that was late began with a trial that was meant to be the next one.
        while self._has_started and len(self._ready) + self._asked_ahead < len(self._pool.busy):
            self._asked_ahead += 1
            self._storage.claim(None, self._after_claim_ahead)
        self._has_started = False

        # Give back what was claimed ahead where it may not start, or where other agents' free slots could run it.
        if self._ready and time.monotonic() >= self._next_share:
            self._next_share = time.monotonic() + _SHARE_INTERVAL
            if not self._may_start():
                self.give_back_ready()
            elif not self._has_free_slot:
                self._storage.ask_whether_to_keep(self._after_share)
        self._storage.flush()

    def _start_worker(self, slot: WorkerSlot) -> None:
        """Start a worker in a slot that has none.

        A trial that is to run alone has no other process on its GPU, not even one that is idle or loads the objective:
        its slot waits until the others have ended their trials, and these get new workers when it has ended.
        """
        neighbours = self._pool.neighbours(slot)
        if slot.retry_alone is not None:
            occupied = (WorkerState.BUSY, WorkerState.CLAIMING)
            if any(other.state in occupied or other.prepares_to_be_alone for other in neighbours):
                return
            for other in neighbours:
                other.end_worker()
            slot.start_worker()
        elif not self._may_start():
            self._retire(slot)
        elif time.monotonic() >= slot.retry_at and not any(other.wants_to_be_alone for other in neighbours):
            slot.start_worker()

    def _fill(self, slot: WorkerSlot) -> None:
        if slot.retry_alone is not None:
            prepared, slot.retry_alone = slot.retry_alone, None
            self._start(slot, prepared, alone=True)
        elif not self._may_start():
            self._retire(slot)
        elif not self._start_ready(slot) and self._asked_ahead == 0 and time.monotonic() >= slot.retry_at:
            slot.state = WorkerState.CLAIMING  # where something was asked for ahead, that comes soon
            self._storage.claim(slot.slot, partial(self._after_claim, slot))

    def _is_free(self, slot: WorkerSlot) -> bool:
        """Whether the slot can run a trial now."""
        if slot.state is not WorkerState.IDLE or slot.worker.gone or (slot.closing and slot.retry_alone is None):
            return False
        if slot.failure is not None and self._storage.is_storing(slot.failure):
            return False  # first the ledger says whether too many have failed
        kept_empty = any(other.wants_to_be_alone for other in self._pool.neighbours(slot))
        return slot.retry_alone is not None or not kept_empty

    def _may_start(self) -> bool:
        """Whether trials may still be started.

        A trial must end within the walltime, or go on from a checkpoint after it; a fresh job starts at least one.
        """
        if self._is_over:
            return False
        fits = self._storage.trials_run == 0 or self._walltime.leaves(self._storage.snapshot.longest)
        return fits or newest_file(self._paths.checkpoints) != 0

    @property
    def _is_over(self) -> bool:
        return self._stop.requested or self._stop.after_trials or self._storage.snapshot.ended is not None

    def _retire(self, slot: WorkerSlot) -> None:
        """Retire a slot because no more trials may be started."""
        self.out_of_time = self.out_of_time or not self._is_over
        slot.retire()

    def _start(self, slot: WorkerSlot, prepared: PreparedTrial, *, alone: bool = False) -> None:
        slot.run(prepared, alone=alone)
        # A paused trial is promoted by what is known when a slot is free, not before.
        self._has_started = self._claims_ahead and not self._options.promotes

    @property
    def _claims_ahead(self) -> bool:
        if self._options.claim_ahead != AUTO:
            return bool(self._options.claim_ahead)
        alone = len(self._pool.slots) == 1 and self._holder.job is None
        # What one worker suggests must not depend on how long its trials happen to take.
        return claims_ahead(self._complete, len(self._pool.slots), [] if alone else self._durations)

    def _start_ready(self, slot: WorkerSlot) -> bool:
        """Start a trial that was claimed ahead, where there is one."""
        while self._ready:
            prepared = self._ready.popleft()
            if self._storage.is_current(prepared):
                self._start(slot, prepared)
                self._storage.begin(prepared, slot.slot)
                return True
            self._storage.release(prepared.claim, None)  # this agent was silent so long that others may have taken it
        return False

    def _after_claim(self, slot: WorkerSlot, answer: PreparedTrial | NoTrial) -> None:
        waits = slot.state is WorkerState.CLAIMING
        if isinstance(answer, PreparedTrial):
            if waits and not self._stop.requested and self._storage.is_current(answer):
                self._start(slot, answer)
                return
            self._storage.release(answer.claim, None)
            slot.state = WorkerState.IDLE if waits else slot.state
        elif waits:
            # Claim again later where what runs now may still fail, here or (one agent of all waits) elsewhere.
            stays = bool(self._pool.busy) or answer is NoTrial.SOON or self._waiter.won()
            if answer in (NoTrial.WAIT, NoTrial.SOON) and stays:
                slot.state, slot.retry_at = WorkerState.IDLE, time.monotonic() + _RETRY_INTERVAL
            else:
                slot.retire()

    def _after_claim_ahead(self, answer: PreparedTrial | NoTrial) -> None:
        self._asked_ahead -= 1
        if isinstance(answer, PreparedTrial):
            self._ready.append(answer)
            self._pool.claim_again()

    def _after_share(self, keep: bool) -> None:
        if not keep and not self._has_free_slot:
            self.give_back_ready()

    @property
    def _has_free_slot(self) -> bool:
        return any(self._is_free(slot) for slot in self._pool.slots)

    def give_back_ready(self) -> None:
        """Give back the trials that were claimed ahead and have not begun."""
        while self._ready:
            self._storage.release(self._ready.popleft().claim, None)

    # --- messages from the workers ---

    def connections(self) -> list[Connection]:
        """Where workers are heard; where the system has refused one there is nobody to hear."""
        heard = (slot for slot in self._pool.slots if slot.has_worker)
        return [slot.worker.connection for slot in heard if not slot.worker.refused]

    def hear(self, connection: object) -> None:
        """Take one message from this connection, or the end of its worker; it may have been closed meanwhile."""
        for slot in self._pool.slots:
            if slot.worker.connection is connection and slot.has_worker:
                try:
                    message = slot.worker.receive()
                except (EOFError, OSError):
                    self._worker_died(slot, slot.worker.cause_of_death())
                except UnreadableMessage as error:
                    self._worker_died(slot, str(error))
                else:
                    self._take(slot, message)

    def _take(self, slot: WorkerSlot, message: object) -> None:
        match message:
            case Ready():
                slot.state, slot.early_deaths, self._worker_was_ready = WorkerState.IDLE, 0, True
                text = json.dumps(message.provenance, sort_keys=True)
                slot.provenance = hashlib.sha256(text.encode()).hexdigest()[:12]
                self._storage.note_provenance(slot.provenance, message.provenance)
            case LoadFailed():  # its worker ends
                if not self._may_lack_memory(slot):
                    self._stop.give_up(ObjectiveError(message.message, message.detail))
            case Report():
                # Reports of a trial that has ended are dropped: its objective may have left something running.
                if slot.running is not None and slot.running.prepared.claim.number == message.number:
                    slot.steps += 1
                    slot.running.reports.append(message)
                    self._storage.report(message, slot.worker)
            case SuggestRequest() | ReadRequest():
                self._storage.answer(message, slot.worker)
            case SetAttribute():
                self._storage.set_attribute(message)
            case NodeLost():
                self._give_up_nodes(message.name)
            case Finished():
                self._end_trial(slot, message.outcome)

    def _give_up_nodes(self, lost: str) -> None:
        """A node of the job is gone: the job ends, and its trials go on elsewhere, from their checkpoints.

        SLURM ends a job that has lost a node, too, when it notices that; and where it ends the job for another reason,
        it may reach the other nodes before this one.
        """
        if not self._stop.requested and not wait([self._trap.fileno()], timeout=_SIGNAL_DELAY_OF_NODES):
            self._stop.request(f"{NODE_LOST} {lost}")

    def _drain(self, slot: WorkerSlot) -> None:
        """Take what a dead worker had still sent: a result among it counts."""
        with suppress(EOFError, OSError, UnreadableMessage):
            while slot.worker.connection.poll():
                self._take(slot, slot.worker.receive())

    def check_workers(self) -> None:
        """End trials that run too long; now and then, replace workers that died unheard or that the system refused, and
        see that no log becomes too long.

        A process that the objective has forked holds the pipe open, so that the pipe does not tell of the worker's end.
        """
        limit = self._current.config.optuna.trial_timeout
        looks_for_deaths = time.monotonic() >= self._next_death_check
        if looks_for_deaths:
            self._next_death_check = time.monotonic() + _DEATH_INTERVAL
            self._pool.trim_logs()
        for slot in self._pool.slots:
            if looks_for_deaths and slot.has_worker:
                unheard = slot.worker.has_ended() and not slot.worker.connection.poll()
                if unheard or slot.worker.refused:
                    self._worker_died(slot, slot.worker.cause_of_death())
        for slot in self._pool.slots:
            if limit is not None and slot.running is not None and slot.running.seconds > limit:
                slot.worker.kill()
                self._drain(slot)
                self._fail_trial(slot, TIMEOUT)
                slot.end_worker()
        self._drop_lost()

    def _drop_lost(self) -> None:
        """End what was taken from this agent, as where the budget has become smaller; others may run it some day."""
        lost = self._storage.snapshot.lost
        self._ready = deque(prepared for prepared in self._ready if prepared.claim.token not in lost)
        for slot in self._pool.slots:
            running = slot.running
            if running is not None and running.prepared.claim.token in lost:
                self._storage.log(f"trial {running.prepared.claim.number}: no longer this agent's; given back")
                slot.clear()
                slot.end_worker()
            elif slot.retry_alone is not None and slot.retry_alone.claim.token in lost:
                slot.retry_alone = None

    def _worker_died(self, slot: WorkerSlot, cause: str) -> None:
        slot.worker.kill()  # whatever it has left behind; no trial is given to it
        if slot.running is not None:
            self._fail_trial(slot, cause)
        elif slot.state is WorkerState.STARTING and (slot.worker.has_started or slot.worker.refused):
            slot.early_deaths += 1
            if slot.early_deaths >= (_MOST_LATER_DEATHS if self._worker_was_ready else _MOST_EARLY_DEATHS):
                lines = slot.worker.log.last_lines(0)
                ends = f"the worker of {slot.slot.label} ends before it is ready ({cause}):\n{lines}"
                self._stop.give_up(StudyFailed(ends))
            elif self._may_lack_memory(slot):
                slot.retry_at = time.monotonic() + _RETRY_INTERVAL * slot.early_deaths
                if slot.slot.on_demand and self._packing is not None:
                    self._packing.note_load_failure(slot)
        slot.end_worker()

    def _may_lack_memory(self, slot: WorkerSlot) -> bool:
        """Whether a worker may have failed to load what others here could, for what its neighbours take of the GPU."""
        return self._worker_was_ready and any(other.has_worker for other in self._pool.neighbours(slot))

    # --- how trials end ---

    def _end_trial(self, slot: WorkerSlot, outcome: Outcome) -> None:
        """The slot's trial has ended by itself, or with its worker."""
        if outcome.state == FAIL or outcome.told_to_end or outcome.ended_at > self._pool.told_to_end_at:
            # What ends because it was told to is not a result, whatever it returned: stopping gives the trial back.
            # SLURM signals a job's processes one by one, node by node, and workers may be hit before the agent.
            signalled = self._holder.job is not None or outcome.told_to_end
            delay = (_SIGNAL_DELAY_OF_NODES if slot.slot.nodes else _SIGNAL_DELAY) if signalled else 0.0
            if self._stop.requested or wait([self._trap.fileno()], timeout=delay):
                return
        running = slot.clear()
        if running is None:
            return
        self._complete += outcome.state == COMPLETE
        self._durations.append(outcome.seconds)
        cause = _cause_in_rank(outcome)
        out_of_memory = cause == OUT_OF_MEMORY
        if outcome.ends_worker or out_of_memory:
            # Only the end of the process gives all of a GPU's memory back for certain.
            slot.end_worker()
        if out_of_memory or (cause == KILLED_FOR_MEMORY and self._packing is not None):
            shared = bool(self._pool.neighbours(slot)) and not running.alone and not self._stop.requested
            if self._packing is not None:
                whose = "the GPU's" if out_of_memory else "the host's"
                self._packing.note_out_of_memory(slot, running, whose, shared=shared)
            if shared and (self._packing is not None or self._options.on_oom == "retry_alone"):
                before = running.prepared.claim
                seconds = before.seconds_before + outcome.seconds
                gpu_seconds = before.gpu_seconds_before + outcome.seconds * running.gpu_share
                claim = replace(before, seconds_before=seconds, gpu_seconds_before=gpu_seconds)
                slot.retry_alone, slot.retry_seconds = replace(running.prepared, claim=claim), outcome.seconds
                return
        if out_of_memory and self._options.on_oom == "prune":
            outcome = replace(outcome, state=PRUNED)  # the cause stays with the trial
        self._pool.claim_again()
        result = self._make_result(slot, running, outcome)
        slot.failure = result if result.state == STATES[FAIL] else None
        if slot.failure is None and self._is_free(slot) and slot.retry_alone is None and self._may_start():
            self._start_ready(slot)  # before anything else: its GPU is idle
        self._storage.finish(result)

    def _fail_trial(self, slot: WorkerSlot, cause: str) -> None:
        """The slot's trial has failed; its worker is dead."""
        if slot.running is not None:
            lines = slot.worker.log.last_lines(slot.running.log_offset)
            self._end_trial(slot, Outcome(FAIL, cause=cause, error=lines, seconds=slot.running.seconds))

    def _make_result(self, slot: WorkerSlot, running: CurrentTrial, outcome: Outcome) -> Result:
        """The trial's end as it is stored, with the values of the study's constraints.

        A complete trial that a constraint cannot be computed for fails. In a constraint a metric goes before a
        parameter of the same name; trials that do not complete have no metrics, and so no constraints.
        """
        claim, assignment = running.prepared.claim, running.prepared.assignment
        constraints: dict[str, float] = {}
        if self._constraints and outcome.state == COMPLETE:
            try:
                constraints = constraint_values(self._constraints, {**assignment.values, **outcome.metrics})
            except OutcomeError as error:
                outcome = replace(outcome, state=FAIL, values=None, cause=error.cause, error=str(error))
        record: dict[str, Any] = {
            "metrics": outcome.metrics,
            "seconds": round(claim.seconds_before + outcome.seconds, 3),
            "gpu_seconds": round(claim.gpu_seconds_before + outcome.seconds * running.gpu_share, 3),
            "cause": outcome.cause,
            "error": outcome.error,
            "updates": outcome.updates,
            "unread": outcome.unread,
            "seed": assignment.seed,
            "attempts": claim.attempt,
            "worker": f"{self._holder.host}:{self._holder.agent}:{slot.slot.index}",
            "host": self._holder.host,
            "device": slot.slot.label,
            "gpus": running.gpu_share,
            "log": str(slot.worker.log.path.relative_to(self._paths.save_path)),
            "log_offset": running.log_offset,
            "provenance": slot.provenance,
            **outcome.memory,
        }
        if outcome.state == PAUSED and assignment.pause is not None:
            record["rung"] = assignment.pause.rung
            # The user is told once, when the first trial pauses.
            if not self._checked_checkpoint and newest_file(self._paths.checkpoint(claim.number)) == 0.0:
                self._storage.log(
                    f"trial {claim.number} paused without a checkpoint: when it is promoted it begins anew. Save one "
                    "in trial.checkpoint_dir before each report, or take mode: stopping"
                )
            self._checked_checkpoint = True
        if constraints:
            record[CONSTRAINTS] = constraints
        if outcome.state == FAIL and self._needs_too_much(slot, running, _cause_in_rank(outcome)):
            record[INFEASIBLE] = True
        return Result(
            agent=self._holder.agent,
            trial_id=claim.trial_id,
            number=claim.number,
            token=claim.token,
            state=STATES[outcome.state],
            values=outcome.values,
            record=record,
            reports=[(report.step, report.value) for report in running.reports],
        )

    def _needs_too_much(self, slot: WorkerSlot, running: CurrentTrial, cause: str) -> bool:
        """Whether samplers are to learn that a failed trial's configuration needs more memory or time than there is."""
        if cause == KILLED_FOR_MEMORY:  # the host's memory, which all trials of the job share
            has_neighbours = any(other.running is not None for other in self._pool.slots if other is not slot)
        else:
            has_neighbours = bool(self._pool.neighbours(slot)) and not running.alone
        out_of_memory = cause.startswith(OUT_OF_MEMORY) and not has_neighbours  # they may have taken it
        return self._options.on_oom in ("learn", "retry_alone") and (out_of_memory or cause == TIMEOUT)

    def stop(self, cause: str) -> None:
        """Give all trials back, to go on elsewhere. The workers have been ended; results that they sent still count."""
        for slot in self._pool.slots:
            self._drain(slot)
            running = slot.clear()
            if running is not None:
                seconds = running.seconds + (slot.retry_seconds if running.alone else 0.0)
                self._storage.release(running.prepared.claim, cause, seconds)
            if slot.retry_alone is not None:
                self._storage.release(slot.retry_alone.claim, cause, slot.retry_seconds)
            slot.state = WorkerState.RETIRED
        self.give_back_ready()


def _cause_in_rank(outcome: Outcome) -> str:
    """Why a trial has failed, without the number of the rank that has failed it."""
    return _OF_RANK.sub("", outcome.cause or "", count=1)
