"""How a study stands, as plain data: read from its storage, its lease files and what the cluster says of its jobs.

Reading the status also gives back the trials of agents that are dead. Commands do so in their main thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.ledger.changes import StudyChange, current_config, read_changes
from aimlhpo.ledger.leases import Holder, Registry
from aimlhpo.ledger.ledger import Ledger
from aimlhpo.results.best import BestTrial, describe_best
from aimlhpo.results.confirmation import Confirmation, read_confirmation
from aimlhpo.results.worker_log import WorkerLog
from aimlhpo.search.building import strategies
from aimlhpo.search.queues import plan_of, queue_of
from aimlhpo.search.stopping import StopReason, find_stop_reason
from aimlhpo.search.warm_start import ImportSummary, import_summaries
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import CLAIM, PAUSED, RELEASED, Counts, backend_of, count_overview, has_begun, waits_at_rung
from aimlhpo.storage.trials import count_feasible, count_imported, read_record

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_WINDOW = 50  # trials that the rate is measured over
ENDED_JOB_STATES = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
})  # fmt: skip
"""The states of a job that will not run again, in SLURM's words, which all launchers use."""
RUNNING_JOB_STATES = frozenset({"RUNNING", "SUSPENDED", "SIGNALING", "STOPPED"})
_FAILED_JOB_STATES = frozenset({"BOOT_FAIL", "FAILED", "OUT_OF_MEMORY"})


@dataclass(frozen=True)
class RunningTrial:
    """A trial that an agent works on; `seconds` since this attempt began, `last_report` is (step, value)."""

    number: int
    slot: int | None
    device: str | None
    seconds: float | None
    last_report: tuple[int, float] | None


@dataclass(frozen=True)
class AgentStatus:
    """An agent that is alive, and its trials."""

    agent: str
    host: str
    job: str | None
    python: str
    trials: tuple[RunningTrial, ...]


@dataclass(frozen=True)
class FailedTrial:
    """A trial that failed, with the path of its log and the byte where its lines begin, unless that was dropped."""

    number: int
    cause: str
    worker: str | None
    log: str | None
    log_offset: int | None
    error: str | None


@dataclass(frozen=True)
class InterruptedTrial:
    """A trial that was given back before its end and waits to go on, but not at a rung.

    `attempts` is how often it was begun.
    """

    number: int
    cause: str
    attempts: int


@dataclass(frozen=True)
class JobStatus:
    """One job in the cluster's queue; `time_left` is in seconds, `cause` says why it failed, where that is known.

    `section` is that of `slurm` which it was submitted for, where there are several.
    """

    job: str
    state: str
    reason: str | None
    node: str | None
    time_left: int | None
    log: str | None = None
    cause: str | None = None
    section: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED_JOB_STATES

    @property
    def failed(self) -> bool:
        return self.state in _FAILED_JOB_STATES

    @property
    def queued(self) -> bool:
        return not self.ended and self.state not in RUNNING_JOB_STATES and self.state != "COMPLETING"


class JobStates(Protocol):
    """What a launcher knows of a study's jobs."""

    def jobs(self) -> Sequence[JobStatus] | None:
        """All of them; None where the cluster does not answer."""

    def kept(self, config: Config) -> tuple[int, int, str | None]:
        """Jobs that the user took away, jobs that agents have submitted, and why that failed when it was last tried."""

    def __call__(self, holder: Holder) -> bool | None:
        """Whether an agent's job still runs: a `JobStateQuery`."""


@dataclass(frozen=True)
class JobsToKeep:
    """How a study keeps itself supplied with jobs.

    Attributes:
        jobs: how many are to be there while trials are left.
        fewer: by how much that is less than `slurm: jobs`, because the user took jobs away.
        submitted: how many jobs agents have submitted.
        limit: how many they may submit.
        failure: why an agent could not submit when one last tried to.
    """

    jobs: int
    fewer: int
    submitted: int
    limit: int
    failure: str | None

    @classmethod
    def by_section(cls, config: Config, job_states: JobStates | None) -> dict[str | None, JobsToKeep]:
        """Of the sections that ask for it, where jobs were submitted; a single one has no name."""
        found: dict[str | None, JobsToKeep] = {}
        for each in config.by_section():
            if job_states is not None and each.slurm is not None and each.slurm.keep:
                fewer, submitted, failure = job_states.kept(each)
                jobs, limit = max(0, each.slurm.jobs - fewer), each.slurm.max_submissions
                found[each.section] = cls(jobs, fewer, submitted, limit, failure)
        return found


@dataclass(frozen=True)
class Status:
    """The study at one moment. `rate` is finished trials per second, `eta` seconds until the budget is reached.

    `feasible` is how many complete trials keep the constraints; None where the study has none.
    `ended` says what ended the study: trials may still run then.
    `jobs` is None where none were submitted, `slurm_answers` False where SLURM did not say; `given_up` are permutations
    of a grid, or trainings of a confirmation, that have failed. `changes` are what was changed in the configuration
    since the study was made, the oldest first. `kept` is None without `slurm: keep`; where there are several sections
    of jobs, `kept_by_section` has those with it. `search` is the sampler and the pruner in words; empty where trials
    are fixed beforehand. `confirms` is the study that this one confirms.
    """

    study: str
    storage: str
    save_path: str
    n_trials: int
    counts: Counts
    best: tuple[BestTrial, ...]
    rate: float | None
    eta: float | None
    agents: tuple[AgentStatus, ...]
    failed: tuple[FailedTrial, ...]
    reaped: tuple[int, ...]
    jobs: tuple[JobStatus, ...] | None
    slurm_answers: bool
    interrupted: tuple[InterruptedTrial, ...] = ()
    given_up: int = 0
    feasible: int | None = None
    ended: StopReason | None = None
    taken_over: tuple[ImportSummary, ...] = ()
    search: str = ""
    confirmation: Confirmation | None = None
    confirms: str | None = None
    changes: tuple[StudyChange, ...] = ()
    kept: JobsToKeep | None = None
    kept_by_section: dict[str, JobsToKeep] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Trials that are still to be run."""
        over = self.ended is not None and not self.ended.is_failure
        return 0 if over else max(0, self.n_trials - self.counts.finished)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def job_states(self) -> dict[str, int]:
        return dict(Counter(job.state for job in self.jobs or ()))


def read_status(study: optuna.Study, config: Config, job_states: JobStates | None = None) -> Status:
    """The status of the study, after the trials of dead agents were given back.

    What was changed in the configuration since it was read counts. `job_states` is None where no jobs were submitted.
    Raises Optuna's storage errors, OSError.
    """
    config = current_config(study, config)
    options = config.optuna
    leases = Registry(config.paths.leases, options.grace_period, query_job_state=job_states or (lambda holder: None))
    reaped: list[int] = []
    limits = options.max_retries, options.max_interruptions
    ledger = Ledger(study, config.paths, options.n_trials, "status", leases, *limits)
    with suppress(PermissionError, FileNotFoundError):  # who may not write can still read the status
        reaped = ledger.reap()
    living: list[Holder] = []
    with suppress(PermissionError, FileNotFoundError):
        living = leases.living()

    backend = backend_of(study._storage)
    counts = count_overview(backend.overview(study._study_id), count_imported(study))
    rate = _rate(backend.latest_ends(study._study_id, _WINDOW + 1), study) if counts.running else None
    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    ended = find_stop_reason(study, config, counts)
    queue = queue_of(study, config)
    left = max(0, options.n_trials - counts.finished)
    jobs = job_states.jobs() if job_states is not None else None
    kept = JobsToKeep.by_section(config, job_states)
    return Status(
        study=options.study_name,
        storage=options.storage,
        save_path=options.save_path,
        n_trials=options.n_trials,
        counts=counts,
        best=describe_best(study, config),
        rate=rate,
        eta=left / rate if rate and not ended else None,
        agents=_agents(living, unfinished),
        failed=tuple(_failed(study, config)),
        reaped=tuple(reaped),
        jobs=tuple(jobs) if jobs is not None else None,
        slurm_answers=jobs is not None or job_states is None,
        interrupted=tuple(
            InterruptedTrial(trial.number, history["cause"], history["attempts"])
            for trial in unfinished
            if trial.state == TrialState.WAITING
            and (history := trial.system_attrs.get(RELEASED))
            and not waits_at_rung(trial.state, trial.system_attrs.get(PAUSED))
        ),
        given_up=queue.given_up() if queue is not None else 0,
        feasible=count_feasible(study.get_trials(deepcopy=False)) if options.constraints else None,
        ended=ended,
        search="" if queue is not None else str(strategies(config, study)),
        taken_over=tuple(import_summaries(study)),
        confirmation=read_confirmation(study),
        confirms=(plan_of(study) or {}).get("study"),
        kept=kept.get(None),
        kept_by_section={name: found for name, found in kept.items() if name is not None},
        changes=tuple(change for change in read_changes(study) if change.value != change.before),
    )


def _rate(latest: Sequence[datetime], study: optuna.Study) -> float | None:
    """Finished trials per second until now, over the newest ones since the study was last started."""
    started = float(study_attributes(study).get(STUDY_ATTR, {}).get("started", 0.0))
    ends = [end.timestamp() for end in latest if end.timestamp() >= started]
    if not ends:
        return None
    window = ends[-_WINDOW:]
    begin = ends[-_WINDOW - 1] if len(ends) > _WINDOW else (started or window[0])
    elapsed = time.time() - begin
    return len(window) / elapsed if elapsed > 0 else None


def _agents(living: Iterable[Holder], trials: Sequence[FrozenTrial]) -> tuple[AgentStatus, ...]:
    """The living agents, each with the trials that it has begun."""
    running: dict[str, list[RunningTrial]] = {}
    for trial in trials:
        claim = trial.system_attrs.get(CLAIM) if trial.state == TrialState.RUNNING else None
        if not claim or not has_begun(claim):
            continue
        begun = claim.get("since") or (trial.datetime_start.timestamp() if trial.datetime_start else None)
        step = max(trial.intermediate_values, default=None)
        shown = RunningTrial(
            number=trial.number,
            slot=claim.get("slot"),
            device=claim.get("device"),
            seconds=max(0.0, time.time() - begun) if begun is not None else None,
            last_report=(step, trial.intermediate_values[step]) if step is not None else None,
        )
        running.setdefault(claim["agent"], []).append(shown)
    return tuple(
        AgentStatus(holder.agent, holder.host, holder.job, holder.python, tuple(running.get(holder.agent, ())))
        for holder in living
    )


def _failed(study: optuna.Study, config: Config) -> Iterator[FailedTrial]:
    """Failed trials, the latest to end last."""
    logs: dict[str, WorkerLog] = {}
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    for trial in sorted(failed, key=lambda t: t.datetime_complete.timestamp() if t.datetime_complete else 0.0):
        record = read_record(trial, config.optuna.metric)
        path, offset = None, record.log_offset
        if record.log:
            path = config.paths.save_path / record.log
            log = logs.setdefault(record.log, WorkerLog(path, config.log.max_mb_per_worker))
            offset = log.offset(offset) if offset is not None else None
        cause = record.cause or "unknown"
        yield FailedTrial(record.number, cause, record.worker, str(path) if path else None, offset, record.error)
