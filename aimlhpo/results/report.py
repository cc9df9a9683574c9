"""What a report shows, as plain data read from the storage: every number of a figure or a table that is not Optuna's.

`read_report` reads all of it. Large studies are thinned where they are drawn, never where they are counted.
"""

from __future__ import annotations

import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import show, storage_kind
from aimlhpo.results.best import BestTrial, describe_best
from aimlhpo.results.confirmation import Confirmation, read_confirmation
from aimlhpo.results.worker_log import WorkerLog
from aimlhpo.search.building import make_pruner, strategies
from aimlhpo.search.rungs import ASHA
from aimlhpo.search.stopping import StopReason, find_stop_reason
from aimlhpo.search.warm_start import import_summaries
from aimlhpo.space.constraints import holds
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.attributes import PROVENANCE, STUDY_ATTR, study_attributes
from aimlhpo.storage.base import BY_SECTION, CLAIM, PAUSED, RELEASED, SECTION, Counts, has_begun, waits_at_rung
from aimlhpo.storage.trials import TrialRecord, count, origin, read_record, selected

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator

    from aimlhpo.config.schema import Config

MOST_HISTORY = 2000  # trials in the optimization history
MOST_CURVES = 120  # learning curves that are drawn
MOST_POINTS = 100  # reports of one curve
MOST_SPANS = 1500  # bars of the timeline
MOST_FAILURES = 40  # failures that are shown one by one
LOG_LINES, LOG_BYTES = 20, 4000  # of one failure
LEAST_COMPLETE = 10  # trials that importances are computed from
LEAST_PAIRS = 5  # trials that a correlation is computed from
ELSEWHERE = "in no section"  # of several: on the user's machine, or before there were several; no section's own name
_HOUR = 3600.0
_ROUNDING = 1e-6  # hours
_SEED = 0  # the same report from the same study
_Numbered = TypeVar("_Numbered", FrozenTrial, "Span")


@dataclass(frozen=True)
class TrialRow:
    """One trial, as tables show it; `hours` in the unit of `Hours`, `state` PAUSED for one that waits at a rung.

    `peaks` is the most memory that it took, as in its record.
    """

    number: int
    state: str
    params: dict[str, Any]
    metrics: dict[str, Any]
    feasible: bool | None
    hours: float
    seconds: float | None
    attempts: int
    worker: str | None
    device: str | None
    section: str | None
    start: datetime | None
    end: datetime | None
    cause: str | None
    peaks: dict[str, float]

    @classmethod
    def of(cls, trial: FrozenTrial, record: TrialRecord, config: Config, unit: str) -> TrialRow:
        """The row of a trial; `unit` is that of `Hours`."""
        judged = trial.state == TrialState.COMPLETE and config.optuna.constraints
        return cls(
            number=trial.number,
            state=state_of(trial),
            params=config.space.values(record.params),
            metrics=record.metrics,
            feasible=holds(record.constraints) if judged else None,
            hours=_hours(trial, record, unit),
            seconds=record.seconds,
            attempts=record.attempts,
            worker=record.worker,
            device=record.device,
            section=record.section,
            start=trial.datetime_start,
            end=trial.datetime_complete,
            cause=record.cause,
            peaks=record.peaks,
        )


@dataclass(frozen=True)
class Hours:
    """What the study has cost.

    Attributes:
        unit: "GPU-hours", or "worker-hours" where no trial had a GPU.
        by_end: by how the trials have ended, or how they stand; together they are all that was spent.
        wasted: the hours of failed trials, by cause.
        saved: an estimate of what pruned and paused trials would have taken to their ends; None where there is no
            complete trial with reports to compare them with.
        by_section: the same for each section of `slurm` and what was spent in none, by name, where there are several.
    """

    unit: str
    by_end: dict[str, float]
    wasted: dict[str, float]
    saved: float | None
    by_section: dict[str, Hours] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        return sum(self.by_end.values())


@dataclass(frozen=True)
class MetricHistory:
    """The values of one metric by trial number, thinned to `MOST_HISTORY`, and the best ones.

    `best` has a point for each trial that was the best of its time and keeps the constraints; none of several metrics.
    """

    metric: str
    points: tuple[tuple[int, float, bool], ...]
    """Number, value, and whether the trial keeps the constraints."""
    best: tuple[tuple[int, float], ...]
    trials: int

    @classmethod
    def of(cls, complete: Sequence[FrozenTrial], metric: int, config: Config) -> MetricHistory:
        """From all complete trials, one or more; `metric` is the metric's place in the configuration."""
        best: list[tuple[int, float]] = []
        if len(config.optuna.metric) == 1:
            sign = -1.0 if config.optuna.direction[0] == "maximize" else 1.0
            for trial in complete:
                value = float(trial.values[0])
                if holds(trial.constraints) and (not best or sign * value < sign * best[-1][1]):
                    best.append((trial.number, value))
        shown = thinned(complete, MOST_HISTORY, {number for number, _ in best})
        points = tuple((trial.number, float(trial.values[metric]), holds(trial.constraints)) for trial in shown)
        return cls(config.optuna.metric[metric], points, tuple(best), len(complete))


@dataclass(frozen=True)
class Curve:
    """The reports of one trial, thinned to `MOST_POINTS`."""

    number: int
    state: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, trial: FrozenTrial) -> Curve:
        steps = sorted(trial.intermediate_values)
        every = -(-len(steps) // MOST_POINTS)
        kept = [step for index, step in enumerate(steps) if index % every == 0 or step == steps[-1]]
        return cls(trial.number, state_of(trial), tuple(kept), tuple(trial.intermediate_values[step] for step in kept))


@dataclass(frozen=True)
class Span:
    """The last attempt of a trial, and where it ran: of several sections of `slurm`, `worker` begins with its name."""

    worker: str
    number: int
    state: str
    start: datetime
    end: datetime

    @classmethod
    def of(cls, trial: FrozenTrial, record: TrialRecord) -> Span | None:
        """None where it is not known where and when the trial ran, or another study has run it."""
        claim, start, end = trial.system_attrs.get(CLAIM) or {}, trial.datetime_start, trial.datetime_complete
        if origin(trial) is not None:
            return None
        section = f"{claim[SECTION]} " if SECTION in claim else ""
        if trial.state == TrialState.RUNNING and claim and has_begun(claim):
            begun = datetime.fromtimestamp(claim["since"]) if claim.get("since") else start
            worker = f"{section}{claim['agent']}:{claim.get('slot')}"
            return cls(worker, trial.number, "RUNNING", begun, datetime.now()) if begun else None
        if start is None or end is None or not trial.state.is_finished():
            return None
        earlier = float((trial.system_attrs.get(RELEASED) or {}).get("seconds") or 0.0)
        if record.attempts > 1 and record.seconds is not None:
            start = max(start, datetime.fromtimestamp(end.timestamp() - max(0.0, record.seconds - earlier)))
        # A worker is HOST:AGENT:SLOT; agents have names of their own.
        worker = ":".join(record.worker.split(":")[-2:]) if record.worker else "-"
        return cls(f"{section}{worker}", trial.number, trial.state.name, start, end)


@dataclass(frozen=True)
class Importance:
    """How much each parameter mattered for one metric: mean, 5th and 95th percentile over bootstrap samples.

    `trials` is the size of a sample.
    """

    method: str
    metric: str
    names: tuple[str, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    trials: int
    samples: int


@dataclass(frozen=True)
class RungCorrelation:
    """Spearman's correlation between what complete trials reported at each rung and at the end, with numbers of trials.

    None where fewer than `LEAST_PAIRS` trials have both.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    trials: int


@dataclass(frozen=True)
class Failure:
    """A failed trial; `lines` are the last ones of its log, where the log is there."""

    number: int
    cause: str
    worker: str | None
    end: datetime | None
    error: str | None
    lines: str


@dataclass(frozen=True)
class StudyReport:
    """A study at one moment, with everything that its figures and tables show."""

    study: str
    save_path: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    read_at: datetime
    n_trials: int
    counts: Counts
    ended: StopReason | None
    best: tuple[BestTrial, ...]
    rows: tuple[TrialRow, ...]
    hours: Hours
    histories: tuple[MetricHistory, ...]
    curves: tuple[Curve, ...]
    n_curves: int
    spans: tuple[Span, ...]
    n_spans: int
    importances: tuple[Importance, ...]
    rungs: RungCorrelation | None
    constraints: dict[str, tuple[int, int]]
    """How many complete trials keep each constraint, and of how many."""
    failures: tuple[Failure, ...]
    causes: dict[str, int]
    origin: tuple[tuple[str, str], ...]
    """How the study was made, by label."""
    confirmation: Confirmation | None = None


def read_report(study: optuna.Study, config: Config, *, importances: bool = True) -> StudyReport:
    """Read everything that the report of a study shows; `importances` take seconds, and scikit-learn.

    Raises Optuna's storage errors, ConfigError.
    """
    trials = study.get_trials(deepcopy=False)
    records = {trial.number: read_record(trial, config.optuna.metric) for trial in trials}
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    with_reports = [trial for trial in trials if trial.intermediate_values]
    spans = [span for trial in trials if (span := Span.of(trial, records[trial.number])) is not None]
    failed = [record for record in records.values() if record.state == "FAIL"]
    counts = count(trials)
    best = describe_best(study, config)
    keep = {trial.number for trial in best}
    hours = hours_of(trials, records)
    return StudyReport(
        study=config.optuna.study_name,
        save_path=config.optuna.save_path,
        metrics=tuple(config.optuna.metric),
        directions=tuple(config.optuna.direction),
        read_at=datetime.now(),
        n_trials=config.optuna.n_trials,
        counts=counts,
        ended=find_stop_reason(study, config, counts),
        best=best,
        rows=tuple(TrialRow.of(trial, records[trial.number], config, hours.unit) for trial in trials),
        hours=hours,
        histories=tuple(
            MetricHistory.of(complete, index, config) for index in range(len(study.directions)) if complete
        ),
        curves=tuple(map(Curve.of, thinned(with_reports, MOST_CURVES, keep))),
        n_curves=len(with_reports),
        spans=tuple(thinned(spans, MOST_SPANS)),
        n_spans=len(spans),
        importances=tuple(_importances(study, complete, config)) if importances else (),
        rungs=rung_correlation(complete, make_pruner(strategies(config, study).pruner)),
        constraints={
            text: (sum(holds({text: trial.constraints.get(text, 1.0)}) for trial in complete), len(complete))
            for text in config.optuna.constraints
        },
        failures=tuple(_failures(trials, records, config)),
        causes=dict(Counter(short_cause(record.cause) for record in failed).most_common()),
        origin=tuple(_origin(study, config)),
        confirmation=read_confirmation(study),
    )


def thinned(items: Sequence[_Numbered], most: int, keep: Container[int] = ()) -> list[_Numbered]:
    """Every n-th of the items, `most` at most, and those whose number is in `keep`, in their order."""
    step = -(-len(items) // most) if items else 1
    return [item for index, item in enumerate(items) if index % step == 0 or item.number in keep]


def short_cause(cause: str | None) -> str:
    """The beginning of a cause, which many trials share: `exception: ValueError`."""
    return ":".join((cause or "unknown").split(":")[:2])[:80]


def state_of(trial: FrozenTrial) -> str:
    """The trial's state, or PAUSED where it waits at a rung."""
    return "PAUSED" if waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)) else trial.state.name


# --- hours ---


def hours_of(trials: Sequence[FrozenTrial], records: Mapping[int, TrialRecord]) -> Hours:
    """What the trials have cost, earlier attempts and what runs now included."""
    gpus = any(record.gpu_seconds for record in records.values())
    unit = "GPU-hours" if gpus else "worker-hours"
    names: set[str] = set()
    for trial in trials:
        history, claim = (trial.system_attrs.get(key) or {} for key in (RELEASED, CLAIM))
        names.update(records[trial.number].by_section, history.get(BY_SECTION, ()), [claim.get(SECTION, ELSEWHERE)])
    names.discard(ELSEWHERE)
    by_section = {name: _hours_in(trials, records, unit, name) for name in sorted(names)}
    elsewhere = _hours_in(trials, records, unit, ELSEWHERE)
    if by_section and elsewhere.spent > _ROUNDING:
        by_section[ELSEWHERE] = elsewhere
    return replace(_hours_in(trials, records, unit), by_section=by_section)


def _hours_in(
    trials: Sequence[FrozenTrial], records: Mapping[int, TrialRecord], unit: str, section: str | None = None
) -> Hours:
    """What the trials have cost in one section, or in all."""
    by_end: dict[str, float] = {}
    wasted: dict[str, float] = {}
    stopped: list[tuple[int, float]] = []  # number of reports, hours
    for trial in trials:
        record, state = records[trial.number], state_of(trial)
        hours = _hours(trial, record, unit, section)
        if hours:
            by_end[state] = by_end.get(state, 0.0) + hours
        if state == "FAIL" and hours:
            cause = short_cause(record.cause)
            wasted[cause] = wasted.get(cause, 0.0) + hours
        if state in ("PRUNED", "PAUSED") and trial.intermediate_values:
            stopped.append((len(trial.intermediate_values), hours))
    whole = [len(t.intermediate_values) for t in trials if t.state == TrialState.COMPLETE and t.intermediate_values]
    saved = sum(hours * max(0.0, median(whole) / reports - 1) for reports, hours in stopped) if whole else None
    return Hours(unit, by_end, dict(sorted(wasted.items(), key=lambda item: -item[1])), saved)


def _hours(trial: FrozenTrial, record: TrialRecord, unit: str, section: str | None = None) -> float:
    """What the trial has taken so far, in one section or in all."""
    key = "gpu_seconds" if unit == "GPU-hours" else "seconds"
    if trial.state.is_finished():
        seconds, parts = float(getattr(record, key) or 0.0), record.by_section
    else:
        history = trial.system_attrs.get(RELEASED) or {}
        seconds, parts = float(history.get(key) or 0.0), history.get(BY_SECTION, {})
    if section is not None:
        in_sections = {name: part[key] for name, part in parts.items()}
        seconds = max(0.0, {ELSEWHERE: seconds - sum(in_sections.values()), **in_sections}.get(section, 0.0))
    claim = trial.system_attrs.get(CLAIM) or {}
    is_here = section is None or claim.get(SECTION, ELSEWHERE) == section
    if is_here and trial.state == TrialState.RUNNING and claim.get("since"):
        gpus = float(claim.get("gpus") or 0.0) if unit == "GPU-hours" else 1.0
        seconds += max(0.0, time.time() - claim["since"]) * gpus
    return seconds / _HOUR


# --- figures ---


@dataclass(frozen=True)
class _Method:
    """A way to compute importances: how many bootstrap samples of how many trials it can afford."""

    name: str
    make: Callable[[], BaseImportanceEvaluator]
    samples: int
    most_trials: int

    def importance(
        self, study: optuna.Study, finite: Sequence[FrozenTrial], metric: int, name: str
    ) -> Importance | None:
        """Of each parameter for a metric; samples without any variance are left out, None where no sample has any."""
        trials, draw = thinned(finite, self.most_trials), random.Random(_SEED)
        sign = -1.0 if study.directions[metric] == StudyDirection.MAXIMIZE else 1.0
        found = []
        for _ in range(self.samples):
            sample = selected(study, draw.choices(trials, k=len(trials)))
            try:
                values = self.make().evaluate(sample, target=lambda trial: sign * trial.values[metric])
            except (RuntimeError, ValueError):  # how Optuna says that nothing varies in this sample
                continue
            total = sum(values.values())
            if total > 0:  # the importances of a sample are made to add up to 1
                found.append({key: float(value) / total for key, value in values.items()})
        if not found:
            return None
        parameters = dict.fromkeys(key for values in found for key in values)
        shares = {key: sorted(values.get(key, 0.0) for values in found) for key in parameters}
        names = sorted(shares, key=lambda key: -sum(shares[key]))
        last = len(found) - 1
        return Importance(
            self.name,
            name,
            tuple(names),
            tuple(sum(shares[key]) / len(found) for key in names),
            tuple(shares[key][round(0.05 * last)] for key in names),
            tuple(shares[key][round(0.95 * last)] for key in names),
            min(len(finite), self.most_trials),
            len(found),
        )


def _importances(study: optuna.Study, complete: Sequence[FrozenTrial], config: Config) -> Iterator[Importance]:
    """By both methods, for each metric; nothing where too few trials are complete, or all have the same value."""
    varied = {name for trial in complete for name in trial.params}
    if len(complete) < LEAST_COMPLETE or len(varied) < 2:
        return
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator  # they load scikit-learn

    # Trees of 200 trials that are deeper than this take twice as long and say the same.
    fanova = partial(FanovaImportanceEvaluator, n_trees=8, max_depth=8, seed=_SEED)
    methods = (
        _Method("PED-ANOVA", PedAnovaImportanceEvaluator, samples=20, most_trials=1000),
        _Method("fANOVA", fanova, samples=8, most_trials=200),
    )
    with warnings.catch_warnings(action="ignore"):  # that it is experimental, and that PED-ANOVA minimizes
        for index, metric in enumerate(config.optuna.metric):
            finite = [trial for trial in complete if math.isfinite(trial.values[index])]
            if len({trial.values[index] for trial in finite}) < 2:
                continue
            for method in methods:
                importance = method.importance(study, finite, index, metric)
                if importance is not None:
                    yield importance


def rung_correlation(complete: Sequence[FrozenTrial], pruner: BasePruner) -> RungCorrelation | None:
    """How well early reports tell the last; rungs are ASHA's, or an eighth, a quarter and half of the reports."""
    import pandas

    curves: list[dict[int, float]] = [trial.intermediate_values for trial in complete if trial.intermediate_values]
    if len(curves) < LEAST_PAIRS:
        return None
    columns: dict[str, list[float | None]] = {}
    ladder = pruner.ladder_of("", complete) if isinstance(pruner, ASHA) else None
    if ladder is not None and ladder.resources:
        for rung in ladder.resources:
            columns[f"rung {rung}"] = [ladder.value_at(rung, curve) for curve in curves]
    else:
        steps = sorted(max(curves, key=lambda curve: len(list(curve))))
        for share in (8, 4, 2):
            step = steps[max(0, len(steps) // share - 1)]
            columns[f"step {step}"] = [curve.get(step) for curve in curves]
    columns["last"] = [curve[max(curve)] for curve in curves]
    frame = pandas.DataFrame(columns, dtype=float).corr(method="spearman", min_periods=LEAST_PAIRS)
    matrix = tuple(tuple(None if value != value else float(value) for value in row) for row in frame.to_numpy())
    return RungCorrelation(tuple(columns), matrix, len(curves))


# --- failures, and how the study was made ---


def _failures(trials: Sequence[FrozenTrial], records: Mapping[int, TrialRecord], config: Config) -> Iterator[Failure]:
    """The newest failures first, with the last lines of their logs."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    failed.sort(key=lambda trial: trial.datetime_complete or datetime.min, reverse=True)
    begins: dict[str, list[int]] = {}  # where each trial's lines begin, by log
    for record in records.values():
        if record.log is not None and record.log_offset is not None:
            begins.setdefault(record.log, []).append(record.log_offset)
    for trial in failed[:MOST_FAILURES]:
        record = records[trial.number]
        lines = ""
        if record.log is not None and record.log_offset is not None:
            after = min((offset for offset in begins[record.log] if offset > record.log_offset), default=None)
            log = WorkerLog(config.paths.save_path / record.log, config.log.max_mb_per_worker)
            lines = "\n".join(log.between(record.log_offset, after, LOG_BYTES).splitlines()[-LOG_LINES:])
        error = record.error[-LOG_BYTES:] if record.error else None
        cause = record.cause or "unknown"
        yield Failure(trial.number, cause, record.worker, trial.datetime_complete, error, lines)


def _origin(study: optuna.Study, config: Config) -> Iterator[tuple[str, str]]:
    options, noted = config.optuna, study_attributes(study)
    known = noted.get(STUDY_ATTR, {})
    yield "metric", ", ".join(f"{d} {m}" for d, m in zip(options.direction, options.metric, strict=True))
    if options.constraints:
        yield "constraints", "; ".join(options.constraints)
    used = strategies(config, study)
    for kind, section in (("sampler", used.sampler), ("pruner", used.pruner)):
        arguments = ", ".join(f"{name}={show(value)}" for name, value in section.arguments.items())
        told = f"{'auto: ' if kind in used.automatic else ''}{section.type}({arguments})"
        if kind == "sampler" and grid_of(config.space) is not None:
            told = "grid"
        elif kind == "pruner" and options.reported_metric is None:
            told = "none"  # of several metrics, trials report none unless the section names it
        yield kind, told
    yield "seed", str(known.get("seed", "-"))
    for label in ("begun", "started"):
        if label in known:
            when = datetime.fromtimestamp(known[label])
            yield {"begun": "begun", "started": "last started"}[label], f"{when:%Y-%m-%d %H:%M:%S}"
    yield "storage", storage_kind(options.storage)
    yield "objective", options.objective or " ".join(map(str, options.command or ())) or "-"
    yield from (("began with", str(summary)) for summary in import_summaries(study))
    yield "read with", f"Optuna {optuna.__version__}"
    for key, provenance in noted.items():
        if key.startswith(PROVENANCE):
            yield "Python", str(provenance.get("python"))
            yield "commit", str(provenance.get("git_commit") or "-")
            yield "objective's SHA-256", str(provenance.get("objective_sha256") or "-")
            yield "packages", ", ".join(f"{name} {version}" for name, version in provenance.get("packages", {}).items())
