"""The trial that user code sees in a worker: Optuna's trial interface, with the agent behind it.

Nothing here waits for the storage. Reports leave by a pipe, and `should_prune` gives the newest decision that has come
back; only a suggestion of an undeclared parameter waits for its answer. Runs in the worker's training thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from aimlhpo.objective.messages import Assignment, Report, SuggestRequest, UserAttr

LAST_STEP = 2**31 - 1  # what a database column holds


class Channel(Protocol):
    """What a trial asks its agent through."""

    def send(self, message: object) -> None:
        """Send a message that has no answer."""

    def request(self, message: SuggestRequest) -> Any:
        """Send a request and wait for the suggested value. Raises what Optuna raised."""

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """Whether the newest decision is to prune trial `number`; with `wait`, the one on the report at `step`."""


class Trial:
    """One attempt at one trial.

    Attributes:
        number: the trial's number in the study; an interrupted trial keeps it.
        attempt: 1 for the first attempt, 2 after one interruption or pause, and so on.
        conf: the model configuration with this trial's values in it; the objective may change it.
        seed: an integer drawn from the study's seed and the trial's number.
        user_attrs: what earlier attempts, and this one, set with `set_user_attr`.
        intermediate_values: step -> value, everything reported so far, earlier attempts included.
        results: the metrics that the objective recorded.
    """

    def __init__(self, assignment: Assignment, channel: Channel) -> None:
        self.number = assignment.number
        self.attempt = assignment.attempt
        self.conf = assignment.conf
        self.seed = assignment.seed
        self.user_attrs = dict(assignment.user_attrs)
        self.intermediate_values = dict(assignment.intermediate_values)
        self.results: Mapping[str, Any] = {}
        self.datetime_start = datetime.now()
        self._assignment = assignment
        self._channel = channel
        self._values = WatchedValues(assignment.values)
        self._last_step: int | None = None
        self._told_to_end = False

    # --- parameters ---

    @property
    def params(self) -> Mapping[str, Any]:
        """The values of all parameters suggested so far, by their name in the study."""
        return self._values

    @property
    def unread(self) -> list[str]:
        """Declared parameters outside the model configuration that are active in this trial and nothing has read."""
        active = (name for name in self._assignment.plain if name in self._values)
        return [name for name in active if name not in self._values.read]

    def suggest(self, key: str) -> Any:
        """The value of the parameter that the YAML declares under `key` (or under that `name`).

        Raises KeyError, naming the declared keys, where there is none.
        """
        name = self._assignment.names.get(key, key)
        if name not in self._values:
            declared = ", ".join(self._assignment.names) or "none"
            raise KeyError(
                f"no parameter {key!r} is active in this trial; declared under optuna: parameters: {declared}"
            )
        return self._values[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's: the value of `name`, which need not be declared. The sampler is asked only where it is not.

        Raises what Optuna raises for ranges that it does not take, and for a `name` that has another range already.
        """
        return float(self._suggest("suggest_float", name, low=low, high=high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As `suggest_float`, for a whole number."""
        return int(self._suggest("suggest_int", name, low=low, high=high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As `suggest_float`, for one of the choices, which have to be what JSON can hold."""
        options = [plain(choice) for choice in choices]
        value = self._suggest("suggest_categorical", name, choices=options)
        for choice, option in zip(choices, options, strict=True):
            if type(option) is type(value) and option == value:  # 1, 1.0 and True are three choices
                return choice
        return value

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """The same as `suggest_float(name, low, high)`, under Optuna's old name."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """The same as `suggest_float(name, low, high, log=True)`."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """The same as `suggest_float(name, low, high, step=q)`."""
        return self.suggest_float(name, low, high, step=q)

    def _suggest(self, method: str, name: str, **arguments: Any) -> Any:
        declared = self._assignment.settings.get(name)
        if name not in self._values or _meaning(declared) != _meaning(arguments):
            self._values[name] = self._channel.request(SuggestRequest(self.number, method, {"name": name, **arguments}))
        return self._values[name]

    # --- reports and pruning ---

    def report(self, value: float, step: int) -> None:
        """Send an intermediate value of the study's metric; returns at once.

        Args:
            value: a number, or what `float` makes one of.
            step: a whole number from 0, such as the epoch.

        Raises TypeError or ValueError, as Optuna does, for what is no number or a step below 0, and
        NotImplementedError for a study with several metrics where the pruner names none.
        """
        self._refuse_several_metrics("report")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"trial.report takes a number, not {value!r} ({type(value).__name__})") from None
        try:
            position = int(step)
        except (TypeError, ValueError):
            raise TypeError(f"trial.report takes a whole number as step, not {step!r}") from None
        if not 0 <= position <= LAST_STEP:
            raise ValueError(f"trial.report takes a step from 0 to {LAST_STEP}, not {step}")
        self._last_step = position
        self.intermediate_values[position] = number
        self._channel.send(Report(self.number, position, number))

    def should_prune(self) -> bool:
        """Whether this trial should end now: raise `optuna.TrialPruned` then.

        Goes by the newest decision that the agent has sent, which is normally one report behind; with `pruning:
        strict` it waits for the decision on the last report. Raises NotImplementedError as `report` does.
        """
        self._refuse_several_metrics("should_prune")
        wait = self._assignment.strict_pruning
        self._told_to_end = self._channel.decision(self.number, self._last_step, wait=wait)
        return self._told_to_end

    @property
    def pauses(self) -> bool:
        """Whether the trial was told to end because it has reached the rung at which it pauses."""
        pause = self._assignment.pause
        return self._told_to_end and pause is not None and (self._last_step or 0) >= pause.step

    def _refuse_several_metrics(self, method: str) -> None:
        if not self._assignment.reports:
            raise NotImplementedError(
                f"trial.{method} needs a study with one metric, or `pruner: metric:` to say which one is reported"
            )

    # --- what is kept with the trial ---

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a JSON value with the trial. Raises TypeError for what JSON cannot hold."""
        self._channel.send(UserAttr(self.number, key, plain(value)))
        self.user_attrs[key] = value

    def record_results(self, results: Any) -> None:
        """Keep the dict that the objective returned, for the results table."""
        self.results = dict(results) if isinstance(results, Mapping) else {}

    @property
    def checkpoint_dir(self) -> Path:
        """A directory of the trial's own, kept until the trial is finished or longer; made when first asked for."""
        path = Path(self._assignment.checkpoint_dir)
        path.mkdir(parents=True, exist_ok=True)
        return path


def plain(value: Any) -> Any:
    """What JSON makes of a value, so that any other process can read it: of an enumeration of strings a string, of a
    tuple a list.

    Raises TypeError for what JSON cannot hold, ValueError for what holds itself.
    """
    return json.loads(json.dumps(value))


class WatchedValues(dict[str, Any]):
    """Remembers which of its keys were looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        self.read.update(super().keys())
        return super().__iter__()

    def values(self) -> Any:
        self.read.update(super().keys())
        return super().values()

    def items(self) -> Any:
        self.read.update(super().keys())
        return super().items()


def _meaning(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Suggest arguments without those that say what is so anyway, so that two ways to write one thing compare equal."""
    if arguments is None:
        return None
    silent = {"step": (None, 1), "log": (None, False)}
    return {key: value for key, value in arguments.items() if key != "name" and value not in silent.get(key, ())}
