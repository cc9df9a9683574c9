"""How trials end: with a result, with a failure, or given back."""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.feasibility import judge
from aimlhpo.agent.memory import OUT_OF_MEMORY, after_out_of_memory
from aimlhpo.agent.records import result
from aimlhpo.agent.seat import Running, Seat, State
from aimlhpo.constraints import parse_all
from aimlhpo.interruptions import newest_file
from aimlhpo.protocol import FAIL, PAUSED, Outcome

if TYPE_CHECKING:
    from aimlhpo.agent.desk import Desk
    from aimlhpo.agent.employment import Employment
    from aimlhpo.agent.halt import Halt
    from aimlhpo.agent.seats import Seats
    from aimlhpo.agent.signals import SignalTrap
    from aimlhpo.config import Config
    from aimlhpo.leases import Holder

_SIGNAL_PATIENCE = 1.0  # seconds for a signal that has reached a worker to reach the agent, too


class Endings:
    """Clears the seats of trials that are over, and hands in what became of them."""

    def __init__(
        self,
        config: Config,
        holder: Holder,
        seats: Seats,
        desk: Desk,
        employment: Employment,
        halt: Halt,
        trap: SignalTrap,
    ) -> None:
        self._policy, self._paths = config.optuna.on_oom, config.paths
        self._constraints = parse_all(config.optuna.constraints)
        self._holder, self._seats, self._desk = holder, seats, desk
        self._employment, self._halt, self._trap = employment, halt, trap
        self._checked_checkpoint = False

    def finish(self, seat: Seat, outcome: Outcome) -> None:
        """The seat's trial has ended by itself, or with its worker."""
        if outcome.state == FAIL and self._is_being_stopped():
            return  # stopping gives the trial back
        running = seat.clear()
        if running is None:
            return
        if outcome.ends_worker:
            seat.replace_worker()
        if outcome.cause == OUT_OF_MEMORY:
            # Only the end of the process gives all of a GPU's memory back for certain.
            seat.replace_worker()
            if self._retries_alone(seat, running):
                seat.for_itself = running.work
                return
            outcome = after_out_of_memory(outcome, self._policy)
        self._seats.ask_again()
        self._employment.start_ready(seat)  # before anything else: its GPU is idle
        self._hand_in(seat, running, outcome)

    def fail(self, seat: Seat, cause: str) -> None:
        """Book the running trial as failed; its worker is dead."""
        if seat.running is not None:
            lines = seat.worker.last_lines(seat.running.log_offset)
            self.finish(seat, Outcome(FAIL, cause=cause, error=lines, seconds=seat.running.seconds))

    def give_back(self, seat: Seat, cause: str) -> None:
        """Retire the seat; what it runs or keeps goes on elsewhere."""
        running = seat.clear()
        if running is not None:
            self._desk.release(running.work.claim, cause, running.seconds)
        if seat.for_itself is not None:
            self._desk.release(seat.for_itself.claim, cause)
        seat.state = State.RETIRED

    def _retries_alone(self, seat: Seat, running: Running) -> bool:
        wanted = self._policy == "retry_alone" and not running.alone and not self._halt.called
        return wanted and bool(self._seats.neighbours(seat))

    def _hand_in(self, seat: Seat, running: Running, outcome: Outcome) -> None:
        claim = running.work.claim
        outcome = judge(outcome, self._constraints, running.work.assignment.values)
        where = self._whereabouts(seat, running.log_offset)
        pause = running.work.assignment.pause
        if outcome.state == PAUSED and pause is not None:
            where["rung"] = pause.rung
            self._mind_checkpoint(claim.number)
        seed = running.work.assignment.seed
        ended = result(self._holder.agent, claim, outcome, where, running.reports, seed)
        self._desk.hand_in(claim, ended, outcome)

    def _mind_checkpoint(self, number: int) -> None:
        """Tell once, of the first trial that pauses, where it has left nothing to go on from."""
        if self._checked_checkpoint:
            return
        self._checked_checkpoint = True
        if newest_file(self._paths.checkpoint(number)) == 0.0:
            self._desk.tell(
                f"trial {number} paused without a checkpoint: when it is promoted it begins anew. Save one in "
                "trial.checkpoint_dir before each report, or take mode: stopping"
            )

    def _is_being_stopped(self) -> bool:
        """Whether a signal has come. SLURM signals a job's processes one by one, and workers may be hit first."""
        patience = _SIGNAL_PATIENCE if self._holder.job is not None else 0.0
        return self._halt.called or bool(wait([self._trap.fileno()], timeout=patience))

    def _whereabouts(self, seat: Seat, log_offset: int) -> dict[str, Any]:
        return {
            "worker": f"{self._holder.host}:{self._holder.agent}:{seat.slot.index}",
            "host": self._holder.host,
            "device": seat.slot.label,
            "gpus": seat.slot.gpu_share,
            "log": str(seat.worker.log.relative_to(self._paths.save_path)),
            "log_offset": log_offset,
            "provenance": seat.provenance,
        }
