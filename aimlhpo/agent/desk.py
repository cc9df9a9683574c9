"""The agent's desk: what the main thread hands to the clerk, and what it learns of the study in return."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.bookkeeper import Bookkeeper, Standing, Work
from aimlhpo.agent.clerk import Clerk
from aimlhpo.agent.reports import Flush, Reports
from aimlhpo.ledger import Claim, Nothing, new_token
from aimlhpo.outbox import Outbox, Result
from aimlhpo.patience import is_outage
from aimlhpo.protocol import FAIL, Decision, Outcome, Report, Suggested, SuggestRequest, UserAttr

if TYPE_CHECKING:
    from aimlhpo.agent.process import WorkerProcess
    from aimlhpo.devices import Slot

_LOOK_PERIOD = 1.0  # seconds between two looks at the whole study


class Desk:
    """Hands storage work in, in order; none of its calls waits for the storage.

    Attributes:
        standing: the study as it was last seen.
        trials_run: trials that this agent has finished.
    """

    def __init__(self, books: Bookkeeper, clerk: Clerk, outbox: Outbox, log: Callable[[str], None]) -> None:
        self.standing = Standing()
        self.trials_run = 0
        self._books, self._clerk, self._outbox, self._log = books, clerk, outbox, log
        self._reports = Reports()
        self._stale, self._refreshing = True, False
        self._next_look = 0.0
        self._told: set[str] = set()

    def claim(self, slot: Slot, then: Callable[[Work | Nothing], None]) -> None:
        self._clerk.submit(partial(self._books.prepare, slot, new_token()), then)

    def report(self, report: Report, worker: WorkerProcess) -> None:
        """Write a report, and tell the worker what was decided."""
        if self._reports.add(report):
            flush = Flush(self._reports, report.number, self._books.report)
            undecided = Decision(report.number, report.step, prune=False)
            self._clerk.submit(self._tolerant(report.number, flush, undecided), partial(_answer, worker))

    def suggest(self, request: SuggestRequest, worker: WorkerProcess) -> None:
        refused = Suggested(
            error=RuntimeError(f"the storage does not take the parameter {request.arguments['name']!r}")
        )
        job = self._tolerant(request.number, partial(self._books.suggest, request), refused)
        self._clerk.submit(job, partial(_answer, worker))

    def set_user_attr(self, message: UserAttr) -> None:
        job = partial(self._books.set_user_attr, message.number, message.key, message.value)
        self._clerk.submit(self._tolerant(message.number, job, None))

    def note_provenance(self, provenance: dict[str, Any]) -> None:
        self._clerk.submit(partial(self._books.note_provenance, provenance))

    def hand_in(self, claim: Claim, ended: Result, outcome: Outcome) -> None:
        """Write a trial's end; a result is kept in the outbox until the storage has it."""
        self._reports.take(ended.number)  # the result holds them all, and is written at once with them
        if outcome.state != FAIL:
            self._keep(ended)
        self._clerk.submit(partial(self._books.finish, claim, ended), partial(self._booked, ended, outcome))

    def release(self, claim: Claim, cause: str, seconds: float = 0.0) -> None:
        self._stale = True
        self._clerk.submit(partial(self._books.release, claim, cause, seconds))

    def reap(self) -> None:
        self._clerk.submit(self._books.reap, self._note_reaped)

    def refresh(self) -> None:
        """Look at the study again where something has changed since."""
        if self._stale and not self._refreshing and time.monotonic() >= self._next_look:
            self._stale, self._refreshing = False, True
            self._next_look = time.monotonic() + _LOOK_PERIOD
            self._clerk.submit(self._books.standing, self._note_standing)

    def tell(self, line: str) -> None:
        """Show the user a line."""
        self._log(line)

    def close(self) -> None:
        """Write the results, and look at the study once more."""
        self._clerk.submit(self._books.write_results)
        self._clerk.submit(self._books.standing, self._note_standing)

    def _tolerant(self, number: int, job: Callable[[], Any], otherwise: Any) -> Callable[[], Any]:
        """The job, but for what the storage refuses for good: that costs the value, and a line, not the agent."""

        def attempt() -> Any:
            try:
                return job()
            except Exception as error:
                if is_outage(error):
                    raise
                self._log(f"trial {number}: the storage refused a value: {type(error).__name__}: {error}"[:300])
                return otherwise

        return attempt

    def _keep(self, ended: Result) -> None:
        try:
            self._outbox.put(ended)
        except OSError as error:
            self._log(f"trial {ended.number}: its result is in memory alone until the storage has it ({error})")

    def _booked(self, ended: Result, outcome: Outcome, written: bool) -> None:
        self._stale = True
        self._outbox.remove(ended.token)
        if not written:
            self._log(f"trial {ended.number}: others took it over while this agent was silent; result dropped")
            return
        self.trials_run += 1
        if outcome.state == FAIL:
            self._log(f"trial {ended.number} failed: {outcome.cause} ({ended.record['log']})")
        else:
            self._tell_unread(ended.number, outcome.unread)

    def _tell_unread(self, number: int, names: list[str]) -> None:
        for name in sorted(set(names) - self._told):
            self._told.add(name)
            self._log(f"parameter {name!r}: nothing read it in trial {number}; it has no effect")

    def _note_reaped(self, numbers: list[int]) -> None:
        if numbers:
            self._stale = True
            self._log(f"trials given back because their agents are gone: {', '.join(map(str, numbers))}")

    def _note_standing(self, standing: Standing) -> None:
        self.standing, self._refreshing = standing, False


def _answer(worker: WorkerProcess, message: Decision | Suggested | None) -> None:
    """Send what the clerk found out to the worker that asked, which may have died or been replaced meanwhile."""
    if message is not None and not worker.connection.closed:
        with suppress(OSError):
            worker.connection.send(message)
