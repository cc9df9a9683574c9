"""The trial that user code sees in a worker: Optuna's trial interface, with the agent behind it.

Nothing here waits for the storage. Reports leave by a pipe, and `should_prune` gives the newest decision that has come
back; only a suggestion of an undeclared parameter, and what is read of the study, wait for their answers. Runs in the
worker's training thread, and in processes that the objective starts: there a trial passes on what it is asked to do to
the process that it belongs to, over a `RelayedChannel`; what serves it there is `aimlhpo.worker.channel.Relay`.

To Optuna's own code a `Trial` is an instance of `optuna.trial.Trial`, but Optuna is loaded only where the objective
imports it or asks for what is made of its classes.
"""

from __future__ import annotations

import functools
import json
import math
import os
import pickle
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from aimlhpo.objective.messages import (
    Answer,
    Assignment,
    ReadRequest,
    Report,
    SetAttribute,
    StudyInfo,
    SuggestRequest,
)
from aimlhpo.objective.study import ReadOnlyStudy, TrialStorage

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LAST_STEP = 2**31 - 1  # what a database column holds
_CONSTRAINT = "constraints:"  # before the key, among the system attributes: there Optuna's samplers look for them

_CREDENTIALS = struct.Struct("3i")

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Channel(Protocol):
    """What a trial asks its agent through."""

    def send(self, message: object) -> None:
        """Send a message that has no answer."""

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        """Send a request and wait for the answer. Raises what it was refused with."""

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """Whether the newest decision is to prune trial `number`; with `wait`, the one on the report at `step`."""


class TrialAddress(NamedTuple):
    """Where an attempt at a trial runs: a process, and the name of its relay's socket."""

    number: int
    attempt: int
    process: int
    name: bytes


@dataclass(frozen=True)
class ShouldPrune:
    """The question that `trial.should_prune` asks."""


def _takes_entries(method: _Method) -> _Method:
    """Let a suggest method take a whole entry of `conf["optuna"]["parameters"]`, as `trial.suggest_int(**entry)`.

    It then gives the value of the parameter that the entry declares, with that parameter's type.
    """

    @functools.wraps(method)
    def suggest(self: Trial, *arguments: Any, **named: Any) -> Any:
        if not arguments and "type" in named and isinstance(named.get("settings"), Mapping):
            return self._declared_value(self._name_of(named))
        return method(self, *arguments, **named)

    return suggest  # type: ignore[return-value]


class Trial:
    """One attempt at one trial.

    It may be copied, and pickled into other processes. A copy in this process is the trial itself; in another process
    it can read what was known when it was made, and does everything else in the process that the trial belongs to, or
    raises RuntimeError where the trial has ended or cannot be reached.

    Args:
        assignment: what is to be run.
        channel: the way to the agent.
        study: what is known of the study.
        relay: the name of the socket at which other processes reach this one.

    Attributes:
        number: the trial's number in the study; an interrupted trial keeps it.
        attempt: 1 for the first attempt, 2 after one interruption or pause, and so on.
        conf: the model configuration with this trial's values in it; the objective may change it.
        seed: an integer drawn from the study's seed and the trial's number.
        user_attrs: what earlier attempts, and this one, set with `set_user_attr`.
        intermediate_values: step -> value, everything reported so far, earlier attempts included.
        results: the metrics that the objective recorded.
        datetime_start: when this attempt began.
    """

    def __init__(self, assignment: Assignment, channel: Channel, study: StudyInfo, relay: bytes = b"") -> None:
        self.number = assignment.number
        self.attempt = assignment.attempt
        self.conf = assignment.conf
        self.seed = assignment.seed
        self.user_attrs = dict(assignment.user_attrs)
        self.intermediate_values = dict(assignment.intermediate_values)
        self.results: Mapping[str, Any] = {}
        self.datetime_start = datetime.now()
        self._assignment, self._study = assignment, study
        self._address = TrialAddress(assignment.number, assignment.attempt, os.getpid(), relay)
        self._process, self._way = os.getpid(), channel
        self._values = WatchedValues(assignment.values)
        self._suggested: dict[str, tuple[str, dict[str, Any]]] = {}
        self._system_attrs: dict[str, Any] = {}
        self._last_step: int | None = None
        self._told_to_end = False

    # --- one trial in several processes ---

    @property
    def _channel(self) -> Channel:
        """The way to the agent; in a process that the trial does not belong to, the way to the one that it does."""
        if self._process != os.getpid():
            self._process, self._way = os.getpid(), RelayedChannel(self._address)
        return self._way

    def take(self, message: object) -> Any:
        """Do what another process that holds the trial was asked for. Raises what the call raises there."""
        self._values.read.update(self._values)
        match message:
            case Report():
                return self.report(message.value, message.step)
            case SetAttribute():
                return self._set_attribute(message.key, message.value, system=message.system)
            case SuggestRequest():
                return getattr(self, message.method)(**message.arguments)
            case ReadRequest():
                return self._channel.request(message)
            case ShouldPrune():
                return self.should_prune()
        raise TypeError(f"no message of a trial: {message!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        self._values.read.update(self._values)  # by whoever gets the pickle
        return _restore, ({**self.__dict__, "_process": None, "_way": None},)

    def __copy__(self) -> Trial:
        return self

    def __deepcopy__(self, memo: Any) -> Trial:
        return self

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Optuna's class where that is loaded, so that `isinstance` takes a trial for one of its trials."""
        return getattr(sys.modules.get("optuna.trial"), "Trial", Trial)

    # --- parameters ---

    @property
    def params(self) -> Mapping[str, Any]:
        """The values of all parameters suggested so far, by their name in the study."""
        return self._values

    @property
    def relative_params(self) -> dict[str, Any]:
        """The values of the declared parameters, which were sampled together before the trial began."""
        return dict(self._assignment.values)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna searches for each parameter suggested so far, by its name in the study."""
        from optuna import distributions

        found = {
            name: distributions.json_to_distribution(text)
            for name, text in self._assignment.distributions.items()
            if name in self._assignment.values
        }
        for name, (method, arguments) in self._suggested.items():
            kind = {"suggest_int": "IntDistribution", "suggest_float": "FloatDistribution"}
            found.setdefault(name, getattr(distributions, kind.get(method, "CategoricalDistribution"))(**arguments))
        return found

    @property
    def unread(self) -> list[str]:
        """Declared parameters outside the model configuration that are active in this trial and nothing has read."""
        active = (name for name in self._assignment.plain if name in self._values)
        return [name for name in active if name not in self._values.read]

    def suggest(self, key: str) -> Any:
        """The value of the parameter that the YAML declares under `key` (or under that `name`).

        Raises KeyError, naming the declared keys, where there is none.
        """
        return self._declared_value(self._assignment.names.get(key, key))

    def _declared_value(self, name: str) -> Any:
        if name not in self._values:
            declared = ", ".join(self._assignment.names) or "none"
            raise KeyError(
                f"no parameter {name!r} is active in this trial; declared under optuna: parameters: {declared}"
            )
        return self._values[name]

    def _name_of(self, entry: Mapping[str, Any]) -> str:
        """The name of the parameter that a whole entry declares. Raises TypeError where that is not clear."""
        settings, declared = entry["settings"], self.conf["optuna"]["parameters"]
        if "name" in settings:
            return str(settings["name"])
        same = [key for key, other in declared.items() if other["settings"] is settings]
        keys: list[str] = same or [key for key, other in declared.items() if other == entry]
        if len(keys) != 1:
            raise TypeError(
                f"trial.suggest_*(**entry): which of the parameters {', '.join(declared)} the entry {entry} is for "
                "is not clear; give it a name (settings: name: ...), or call trial.suggest(key)"
            )
        return self._assignment.names[keys[0]]

    @_takes_entries
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's: the value of `name`, which need not be declared. The sampler is asked only where it is not.

        Raises what Optuna raises for ranges that it does not take, and for a `name` that has another range already.
        """
        return float(self._suggest("suggest_float", name, low=low, high=high, step=step, log=log))

    @_takes_entries
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As `suggest_float`, for a whole number."""
        return int(self._suggest("suggest_int", name, low=low, high=high, step=step, log=log))

    @_takes_entries
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As `suggest_float`, for one of the choices, which have to be what JSON can hold."""
        options = [plain(choice) for choice in choices]
        value = self._suggest("suggest_categorical", name, choices=options)
        for choice, option in zip(choices, options, strict=True):
            if type(option) is type(value) and option == value:  # 1, 1.0 and True are three choices
                return choice
        return value

    @_takes_entries
    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """The same as `suggest_float(name, low, high)`, under Optuna's old name."""
        return self.suggest_float(name, low, high)

    @_takes_entries
    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """The same as `suggest_float(name, low, high, log=True)`."""
        return self.suggest_float(name, low, high, log=True)

    @_takes_entries
    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """The same as `suggest_float(name, low, high, step=q)`."""
        return self.suggest_float(name, low, high, step=q)

    def _suggest(self, method: str, name: str, **arguments: Any) -> Any:
        declared = self._assignment.settings.get(name)
        if name not in self._values or _meaning(declared) != _meaning(arguments):
            self._values[name] = self._channel.request(SuggestRequest(self.number, method, {"name": name, **arguments}))
            self._suggested[name] = method, arguments
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
            number = float(one_element(value))
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
        self._set_attribute(key, value, system=False)

    def set_constraint(self, key: str, value: float) -> None:
        """As Optuna's: a value above 0 says that the trial breaks the constraint of this name.

        What is set first counts. Raises TypeError for what is no number, ValueError for NaN.
        """
        try:
            number = float(one_element(value))
        except (TypeError, ValueError):
            raise TypeError(f"trial.set_constraint takes a number, not {value!r} ({type(value).__name__})") from None
        if math.isnan(number):
            raise ValueError(f"trial.set_constraint({key!r}): NaN is no value of a constraint")
        if _CONSTRAINT + key in self._system_attrs:
            warnings.warn(f"the constraint {key!r} is set already; this value is ignored", stacklevel=2)
        else:
            self._set_attribute(_CONSTRAINT + key, number, system=True)

    @property
    def constraints(self) -> dict[str, float]:
        """The values set by `set_constraint`, in earlier attempts, too."""
        found = self.system_attrs.items()
        return {key.removeprefix(_CONSTRAINT): value for key, value in found if key.startswith(_CONSTRAINT)}

    def _set_attribute(self, key: str, value: Any, *, system: bool) -> None:
        self._channel.send(SetAttribute(self.number, key, plain(value), system))
        (self._system_attrs if system else self.user_attrs)[key] = value

    def record_results(self, results: Any) -> None:
        """Keep the dict that the objective returned, for the results table."""
        self.results = dict(results) if isinstance(results, Mapping) else {}

    @property
    def checkpoint_dir(self) -> Path:
        """A directory of the trial's own, kept until the trial is finished or longer; made when first asked for."""
        path = Path(self._assignment.checkpoint_dir)
        path.mkdir(parents=True, exist_ok=True)
        return path

    # --- the study ---

    @property
    def study(self) -> ReadOnlyStudy:
        """The study, to be read: its name and directions, and its trials as far as the agent knows them."""
        return ReadOnlyStudy(self._study, self._read, self.storage)

    @property
    def storage(self) -> TrialStorage:
        """The trial's own attributes, with the interface of Optuna's storages."""
        return TrialStorage(self._trial_id, self._attributes, self._set_attribute)

    @property
    def system_attrs(self) -> dict[str, Any]:
        """What Optuna, its samplers and aimlhpo itself keep with the trial."""
        stored: FrozenTrial = self._read("trial")
        return {**stored.system_attrs, **self._system_attrs}

    @property
    def _trial_id(self) -> int:
        return self._assignment.trial_id

    def _attributes(self, system: bool) -> dict[str, Any]:
        return self.system_attrs if system else self.user_attrs

    def _read(self, what: str) -> Any:
        """Ask the agent for what it knows: an attribute of the study, or "trial"."""
        answer = self._channel.request(ReadRequest(self.number, what))
        return pickle.loads(answer)  # noqa: S301 -- from the agent


def _restore(state: dict[str, Any]) -> Trial:
    """A trial in another process, out of a pickle."""
    trial = Trial.__new__(Trial)
    trial.__dict__.update(state)
    return trial


class RelayedChannel:
    """The channel of a trial that belongs to another process.

    Every call raises what it has raised there, or RuntimeError, saying so, where the trial has ended or cannot be
    reached from here.
    """

    def __init__(self, address: TrialAddress) -> None:
        self._address = address
        self._calling = threading.Lock()
        self._connection: Connection | None = None

    def send(self, message: object) -> None:
        self._call(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        return self._call(message)

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._call(ShouldPrune()))

    def _call(self, message: object) -> Any:
        with self._calling:
            connection, self._connection = self._connection or self._connect(), None
            try:
                connection.send((self._address, message))
                answer: Answer = connection.recv()
            except (EOFError, OSError):
                raise self._unreachable() from None
            self._connection = connection  # without its answer, the call would be answered to the next question
        return answer.get()

    def _connect(self) -> Connection:
        """Raises RuntimeError."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self._address.name)
            except OSError:
                raise self._unreachable() from None
            if peer_of(client) != (self._address.process, os.getuid()):
                raise self._unreachable()
            return Connection(client.detach())

    def _unreachable(self) -> RuntimeError:
        return RuntimeError(
            f"trial {self._address.number} can only be read in process {os.getpid()}: the process that ran it has "
            "ended, or is on another machine"
        )


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel knows them."""
    process, user, _ = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return process, user


def one_element(value: Any) -> Any:
    """The Python scalar inside an array or tensor with one element, of any shape; anything else as it is."""
    array = value
    if getattr(value, "shape", None) is not None and not hasattr(value, "item"):  # as TensorFlow's tensors
        array = value.numpy() if callable(getattr(value, "numpy", None)) else value
    shape, item = getattr(array, "shape", None), getattr(array, "item", None)
    return item() if isinstance(shape, tuple) and math.prod(shape) == 1 and callable(item) else value


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
