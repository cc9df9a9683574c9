"""The `optuna:` section as pydantic models: the study, its storage, budget, strategies and search space.

First the keys that hold mappings of their own (parameters, patience, strategies, warm start), then the section. The
search space is only checked for its form here: `Config.space` has its parameters.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from aimlhpo.config.fields import (
    AUTO,
    TEXT,
    Command,
    Count,
    CountFromZero,
    CountOrAll,
    Flag,
    FlagOrAuto,
    Mapping,
    Seconds,
    Section,
    Seed,
    Text,
    Variables,
    Words,
    as_list,
    illegal,
    in_editors,
    mapping,
    one_of,
    real,
)
from aimlhpo.errors import did_you_mean, listing, show
from aimlhpo.space.constraints import LEGAL, ConstraintError, parse_constraint
from aimlhpo.space.parameter_types import as_number

RULES = ("timeout", "target_value", "max_gpu_hours", "patience", "terminator")
"""All keys that end a study before `n_trials` does."""
TIMEOUT_SCOPES = ("submission", "study")
AT_STOP = ("finish", "prune")
DIRECTIONS = ("minimize", "maximize")
MOST_FRUITLESS = 5  # interruptions in a row without a new report or checkpoint, by default
ON_OOM = ("learn", "fail", "prune", "retry_alone")
PRUNING = ("fast", "strict")
KEPT = ("all", "best", "none")
_NUMBER = {"type": "number"}
_ONE_DIRECTION = {"enum": DIRECTIONS}
_LEGAL_STUDY = (
    "a study's save_path or hyperparameter file; or study_name: NAME, and storage: URL where it is another one"
)


class ParameterSection(Section):
    """One parameter of the search space, under its key."""

    type: Text = Field(description="The kind of parameter.")
    settings: Mapping = Field(
        description="The name in the study (the key where not given), and arguments of that kind."
    )
    substitute: Flag = Field(
        default=True,
        description="Whether the value replaces the model YAML's at the key; false where only custom_updates reads it.",
    )
    pass_as: Text | None = Field(
        default=None,
        alias="pass-as",
        description="How `command` gets the value, with {v} in its place. Default: --NAME={v}; "
        "booleans as --NAME or --no-NAME.",
    )
    dependency: Any = Field(
        default=None,
        description="What the value has to do with another: {type: multiply, on: OTHER}, or {type: optimize_iff, "
        "on: OTHER, conditions: [{type: equal, compare_value: VALUE}], otherwise: VALUE}; a list for several.",
    )


def _parameters(value: Any) -> Any:
    """Give every entry without a name its key as the name."""
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "one entry per parameter")
    return {
        str(key): {**entry, "settings": {"name": str(key), **entry["settings"]}}
        if isinstance(entry, dict) and isinstance(entry.get("settings"), dict)
        else entry
        for key, entry in value.items()
    }


Parameters = Annotated[dict[str, ParameterSection], BeforeValidator(_parameters)]


def reported_metric(metrics: list[str], named: str | None) -> int | None:
    """The position of the metric that trials report: the only one, or the one that the pruner names."""
    if named in metrics:
        return metrics.index(named)
    return 0 if len(metrics) == 1 else None


def _targets(value: Any) -> float | dict[str, float]:
    legal = "a number, or metric: number pairs"
    number = as_number(value)
    if number is not None:
        return float(number)
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a number", legal)
    if not value:
        raise illegal("is empty", legal)
    for name, one in value.items():
        if as_number(one) is None:
            raise illegal(f"{name} is {show(one)}, not a number", legal)
    return {str(name): float(as_number(one) or 0) for name, one in value.items()}


NotNegative = Annotated[float, real("a number, 0 or more", zero=True), in_editors({**_NUMBER, "minimum": 0})]
Hours = Annotated[float, real("hours, more than 0"), in_editors({**_NUMBER, "exclusiveMinimum": 0})]
Targets = Annotated[
    float | dict[str, float],
    BeforeValidator(_targets),
    in_editors(_NUMBER, {"type": "object", "additionalProperties": _NUMBER, "minProperties": 1}),
]


class PatienceSection(Section):
    """How long to wait for a better trial."""

    trials: Count = Field(description="Finished trials in a row without a better one that end the study.")
    min_delta: NotNegative = Field(
        default=0.0,
        description="By how much a value must be better than the best before, at least, to count as better.",
    )


def _patience(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if not isinstance(as_number(value), int):
        raise illegal(f"{show(value)} is not a whole number", "a number of trials, or trials: N and min_delta: X")
    return {"trials": value}


Patience = Annotated[PatienceSection, BeforeValidator(_patience)]


class StrategySection(Section):
    """A sampler or pruner by its class name in Optuna; every other key is a keyword argument of the class."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Text = Field(description="Class name in Optuna, or auto.")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the class."""
        return dict(self.__pydantic_extra__ or {})


class PrunerSection(StrategySection):
    """A pruner, and the metric that it goes by."""

    metric: Text | None = Field(default=None, description="Which of several metrics trials report, and are pruned by.")


_STRATEGY = mapping("type: CLASS, and keyword arguments of the class", shorthand="type")
Strategy = Annotated[StrategySection, _STRATEGY]
Pruner = Annotated[PrunerSection, _STRATEGY]


class WarmStartSection(Section):
    """Another study."""

    path: Text | None = Field(default=None, description="The study's save_path, or its hyperparameter file.")
    study_name: Text | None = Field(default=None, description="Name of the study.")
    storage: Text | None = Field(default=None, description="Its storage. Default: the one of this study.")


def _warm_start(value: Any) -> Any:
    if isinstance(value, dict):
        named = value.get("study_name") is not None or value.get("path") is not None
        if not named and set(value) <= set(WarmStartSection.model_fields):
            raise illegal("names no study", _LEGAL_STUDY)
        return value
    if not isinstance(value, str):
        raise illegal(f"{show(value)} is not a study", _LEGAL_STUDY)
    return {"path": value}


WarmStart = Annotated[WarmStartSection, BeforeValidator(_warm_start)]


def _constraint(value: Any) -> str:
    if not isinstance(value, str):
        raise illegal(f"{show(value)} is not text", LEGAL)
    try:
        return parse_constraint(value).text
    except ConstraintError as error:
        raise illegal(error.found, error.legal) from None


def _directions(value: Any) -> list[str]:
    for word in as_list(value):
        if word not in DIRECTIONS:
            raise illegal(f"{show(word)} is not a direction", listing(DIRECTIONS), did_you_mean(word, DIRECTIONS, 0.4))
    return as_list(value)


def _entries(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise illegal(f"{show(value)} is not a list of mappings", "a list of parameter: value mappings")
    return value


Directions = Annotated[
    list[str], BeforeValidator(_directions), in_editors(_ONE_DIRECTION, {"type": "array", "items": _ONE_DIRECTION})
]
Constraints = Annotated[
    list[Annotated[str, BeforeValidator(_constraint), in_editors(TEXT)]],
    BeforeValidator(as_list),
    in_editors(TEXT, {"type": "array", "items": TEXT}),
]


class OptunaSection(Section):
    """The study."""

    study_name: Text = Field(description="Name of the study; `name` is the same key.")
    storage: Text = Field(
        default="",
        description="FILE.db (SQLite, in save_path), sqlite:///FILE, journal (a file in save_path), "
        "journal:///ABSOLUTE/FILE, or a postgresql://, mysql:// or redis:// URL; ${VARIABLE} is taken from the "
        "environment when the storage is opened. "
        "Default: an SQLite file in save_path, named after the study.",
    )
    reload: Flag = Field(
        default=False, description="Go on with a study that exists, up to n_trials; otherwise make a new one."
    )
    objective: Text | None = Field(default=None, description="Path of the Python file that holds `class Objective`.")
    command: Command | None = Field(
        default=None,
        description="A program to run for each trial in place of `objective`, with placeholders such as {parameters} "
        "and {config}; no shell is involved.",
    )
    working_directory: Text | None = Field(
        default=None, description="Directory that `command` runs in. Default: the one that the study is started in."
    )
    environment: Variables = Field(default_factory=dict, description="Environment variables for `command`.")
    metric: Words = Field(
        default=["val_loss"], description="Metric that train() returns; a list for several objectives."
    )
    direction: Directions = Field(default=["minimize"], description="minimize or maximize; one for each metric.")
    constraints: Constraints = Field(
        default_factory=list,
        description="What a trial must keep to be a solution, over its metrics and parameters, such as "
        '"params_millions <= 20"; one or a list.',
    )
    n_trials: Count = Field(
        description="Trials that must finish: complete and pruned ones count, failed ones do not. "
        "A full grid may leave it out: then every permutation is run."
    )
    timeout: Seconds | None = Field(default=None, description="Seconds after which no more trials are started.")
    timeout_scope: Annotated[str, one_of(*TIMEOUT_SCOPES), in_editors({"enum": TIMEOUT_SCOPES})] = Field(
        default="submission",
        description="What `timeout` counts from. submission: the last start of the study; study: its first start, "
        "whatever lies between.",
    )
    target_value: Targets | None = Field(
        default=None,
        description="Ends the study when a complete trial is as good: a number, or metric: number pairs that one trial "
        "must reach together.",
    )
    max_gpu_hours: Hours | None = Field(
        default=None,
        description="Ends the study when its trials have used so many GPU hours since its beginning, failed and "
        "interrupted ones included.",
    )
    patience: Patience | None = Field(
        default=None,
        description="Ends the study when so many trials in a row have finished without a better one: a number, or "
        "trials: N and min_delta: X.",
    )
    terminator: Strategy | None = Field(
        default=None,
        description="Ends the study when Optuna's Terminator says so: type: Terminator, with improvement_evaluator and "
        "error_evaluator, each by its class name with its keyword arguments.",
    )
    at_stop: Annotated[str, one_of(*AT_STOP), in_editors({"enum": AT_STOP})] = Field(
        default="finish",
        description="What running trials do when a rule other than n_trials ends the study. finish: run to their end; "
        "prune: give up at their next should_prune().",
    )
    gpu: Flag = Field(default=False, description="Whether each worker gets a GPU of its own.")
    save_path: Text = Field(default=".", description="Directory of the study's files.")
    seed: Seed | None = Field(
        default=None, description="Seed of the sampler; each trial's own seed comes from it and the number."
    )
    sampler: Strategy | None = Field(
        default=None,
        description="Sampler by Optuna class name, with its keyword arguments; or auto, the default: chosen for the "
        "study when it is made.",
    )
    sampler_sees: CountOrAll | None = Field(
        default=None,
        description="Finished trials that TPESampler, RungSampler, RungTPESampler or GPSampler models, the best and "
        "the newest ones, or all. Default: 1000, and 300 for GPSampler.",
    )
    pruner: Pruner | None = Field(
        default=None,
        description="Pruner by Optuna class name, with its keyword arguments; with several metrics also `metric`: "
        "the one that trials report. Or auto, the default: chosen for the study when it is made.",
    )
    parameters: Parameters = Field(
        default_factory=dict,
        description="The search space: colon path into the model YAML, or a plain name, to a parameter.",
    )
    enqueue: Annotated[list[dict[str, Any]], BeforeValidator(_entries)] = Field(
        default_factory=list, description="Trials to run first: parameter values by name or key."
    )
    enqueue_default: Flag = Field(
        default=False, description="Run the model YAML's own values of the searched keys first, as a trial."
    )
    warm_start_from: WarmStart | None = Field(
        default=None,
        description="Another study whose finished trials the sampler learns from: its save_path or hyperparameter "
        "file, or study_name: NAME and storage: URL. They do not count against n_trials.",
    )
    keep_checkpoints: Annotated[str, one_of(*KEPT), in_editors({"enum": KEPT})] = Field(
        default="all",
        description="Which trials' checkpoint directories are kept once they have finished: all; best: of the best "
        "trial, or the Pareto front; none. Failed trials are finished, interrupted ones are not.",
    )
    grace_period: Seconds = Field(
        default=120.0,
        description="Seconds without a sign of life after which a dead agent's trials are given to others.",
    )
    trial_timeout: Seconds | None = Field(
        default=None, description="Seconds after which a trial that still runs is failed."
    )
    max_retries: CountFromZero = Field(
        default=0, description="How often a trial that its objective failed is tried again with the same parameters."
    )
    max_interruptions: Count = Field(
        default=MOST_FRUITLESS,
        description="Interruptions in a row without a new report or checkpoint after which a trial is failed; "
        "one that gets on may be interrupted without end.",
    )
    max_consecutive_failures: Count = Field(default=10, description="Failed trials in a row that stop the study.")
    claim_ahead: FlagOrAuto = Field(
        default=AUTO,
        description="Whether each slot's next trial is claimed and sampled while it trains, so that it starts at once; "
        "with false, each suggestion sees the last result. auto: once two trials are complete for each slot, if trials "
        "take less than 20 s (the median of the last ones).",
    )
    on_oom: Annotated[str, one_of(*ON_OOM), in_editors({"enum": ON_OOM})] = Field(
        default="learn",
        description="What becomes of a trial that ran out of memory: learn (it fails, and TPE and GP samplers learn to "
        "keep away from its configuration, as they do after a timeout), fail, prune or retry_alone.",
    )
    pruning: Annotated[str, one_of(*PRUNING), in_editors({"enum": PRUNING})] = Field(
        default="fast", description="fast: the newest decision at hand, never waiting; strict: exactly as in Optuna."
    )

    @model_validator(mode="before")
    @classmethod
    def _direction_for_each_metric(cls, data: Any) -> Any:
        """Without `direction`, every metric is minimized."""
        if isinstance(data, dict) and "direction" not in data and isinstance(data.get("metric"), list):
            return {**data, "direction": ["minimize"] * len(data["metric"])}
        return data

    @property
    def promotes(self) -> bool:
        """Whether trials pause at rungs and are promoted."""
        pruner = self.pruner
        return pruner is not None and pruner.type == "ASHA" and pruner.arguments.get("mode") == "promotion"

    @property
    def reported_metric(self) -> int | None:
        """The position of the metric that trials report, where there is one."""
        return reported_metric(self.metric, self.pruner.metric if self.pruner is not None else None)

    @property
    def targets(self) -> dict[str, float]:
        """`target_value` by metric."""
        target = self.target_value
        return target if isinstance(target, dict) else {} if target is None else {self.metric[0]: target}
