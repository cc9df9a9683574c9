"""What an agent asks of the ledger at once, and the answers; and results on their way to the storage.

A `LedgerBatch` holds requests (`ClaimRequest`, `Beginning`, `Result`, `Release`), `LedgerAnswer` the answers: plain
values. The `Outbox` keeps a `Result` as a file until it is stored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from aimlhpo.config.paths import replace_file
from aimlhpo.search.stopping import StopReason
from aimlhpo.storage.base import Operation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """The right to run one trial, for as long as the token stands in the storage.

    Attributes:
        attempt: 1 for a trial that nobody has begun before.
        seconds_before: what earlier attempts took.
        gpu_seconds_before: the same, times the GPUs that they had.
    """

    trial_id: int
    number: int
    token: str
    attempt: int
    seconds_before: float = 0.0
    gpu_seconds_before: float = 0.0


class NoTrial(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is finished"
    WAIT = "all that is left of the budget is running"
    SOON = "all that is left of the budget is claimed, but not all of it has begun; or the claims are confirmed first"
    STOPPED = "a stopping rule has ended the study"


@dataclass(frozen=True)
class ClaimRequest:
    """A request for the next trial, under a token of its own.

    `since` is when the trial begins, in seconds since the epoch; None claims it ahead, for no slot in particular.
    """

    token: str
    slot: int | None = None
    device: str | None = None
    gpus: float = 0.0
    since: float | None = None


@dataclass(frozen=True)
class Beginning:
    """A trial that was claimed ahead runs in a slot, `since` seconds since the epoch."""

    claim: Claim
    slot: int
    device: str
    gpus: float
    since: float


@dataclass(frozen=True)
class Result:
    """A trial's end, as the outbox keeps it and as the ledger writes it.

    Attributes:
        agent: who ran the trial.
        state: the name of Optuna's state; WAITING pauses the trial at the rung that the record names.
        record: what is kept with the trial beside its values.
        reports: (step, value) of this attempt in order; some of them may be stored already.
    """

    agent: str
    trial_id: int
    number: int
    token: str
    state: str
    values: list[float] | None
    record: dict[str, Any]
    reports: list[tuple[int, float]]


@dataclass(frozen=True)
class Release:
    """An unfinished trial is given back; one that has not begun (`cause` is None) as if it had never been claimed.

    `seconds` is what this attempt took.
    """

    claim: Claim
    cause: str | None
    seconds: float = 0.0


@dataclass(frozen=True)
class LedgerBatch:
    """Requests that are decided on one after another and written at once.

    `writes` are other operations on trials, by trial id, which are written with them.
    """

    results: Sequence[Result] = ()
    releases: Sequence[Release] = ()
    claim_requests: Sequence[ClaimRequest] = ()
    writes: dict[int, list[Operation]] = field(default_factory=dict)
    beginnings: Sequence[Beginning] = ()

    def parts(self) -> Iterator[LedgerBatch]:
        """A batch for each trial, and one for the rest: what is wrong with one trial must not cost the others."""
        for trial_id, operations in self.writes.items():
            yield LedgerBatch(writes={trial_id: operations})
        for beginning in self.beginnings:
            yield LedgerBatch(beginnings=[beginning])
        for result in self.results:
            yield LedgerBatch(results=[result])
        if self.releases or self.claim_requests:
            yield LedgerBatch(releases=self.releases, claim_requests=self.claim_requests)


@dataclass
class LedgerAnswer:
    """The answers, by token: which trials began, which results were written, which trials given back, the claims.

    `ended` is the stopping rule that has ended the study, where that came up: a trial was to be claimed, or has failed.
    """

    begun: dict[str, bool] = field(default_factory=dict)
    finished: dict[str, bool] = field(default_factory=dict)
    released: dict[str, bool] = field(default_factory=dict)
    claims: dict[str, Claim | NoTrial] = field(default_factory=dict)
    ended: StopReason | None = None

    @classmethod
    def of(cls, parts: Iterable[LedgerAnswer]) -> LedgerAnswer:
        """The answers to the parts of a batch, together."""
        whole = cls()
        for part in parts:
            whole.begun |= part.begun
            whole.finished |= part.finished
            whole.released |= part.released
            whole.claims |= part.claims
            whole.ended = whole.ended or part.ended
        return whole


class Outbox:
    """Results on their way to the storage, each in a file of its own under one directory until the storage has it.

    The claim's token names the file. An agent writes it before it hands the result to the storage thread, and removes
    it when the result is in the storage. What an agent leaves behind, because it was killed or the storage was away,
    is delivered by the next agent that looks for the dead.

    Runs in: the main thread; the storage thread delivers what dead agents have left.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, result: Result) -> None:
        """Keep the result. Raises OSError, for example on a full disk."""
        replace_file(self._path(result.token), json.dumps(asdict(result)), 0o600, lasting=False)

    def remove(self, token: str) -> None:
        self._path(token).unlink(missing_ok=True)

    def results(self) -> Iterator[Result]:
        """Everything that waits; a file that vanishes meanwhile has been delivered."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                known = json.loads(path.read_text())
                reports = [(int(step), float(value)) for step, value in known["reports"]]
                values = None if known["values"] is None else [float(value) for value in known["values"]]
                result = Result(**{**known, "reports": reports, "values": values})
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError) as error:  # cut off when the machine went down
                self.set_aside(path.stem, error)
            else:
                yield result

    def set_aside(self, token: str, reason: Exception) -> None:
        """Never deliver that result; its file stays for whoever wants to read it, and its trial runs again."""
        path = self._path(token)
        aside = path.with_suffix(".broken")
        with suppress(FileNotFoundError):
            path.rename(aside)
            logger.warning("a result that cannot be delivered was put aside in %s (%s)", aside, reason)

    def _path(self, token: str) -> Path:
        return self._directory / f"{token}.json"
