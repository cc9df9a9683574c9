"""What an agent and its workers say to each other over a pipe, as pickled dataclasses.

agent -> worker   Setup, then an Assignment for each trial; Decision and Answer while one runs; Stop at the end
worker -> agent   Started where it was forked, Ready or LoadFailed, then Report, SetAttribute, SuggestRequest and
                  ReadRequest while a trial runs, and Finished when it has ended; NodeLost where it had several nodes
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THIS_PYTHON = "{python}"  # in a command, the Python that aimlhpo itself runs with
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class CommandSpec:
    """A program to run once for each trial.

    Attributes:
        words: the command's words, with their placeholders.
        working_directory: where it runs, and where relative paths in it start.
        files: the directory of the files that {config} stands for.
        pass_as: the parameters' own templates, by their names in the study.
        variables: extra environment variables; `${VARIABLE}` in them is not yet replaced.
        kill_after: seconds between SIGTERM and SIGKILL.
    """

    words: tuple[str, ...]
    working_directory: str
    files: str
    pass_as: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    kill_after: float = 10.0

    def environment(self, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The program's environment: the worker's, which names the slot's GPUs, with the extra variables.

        A Python program is told not to keep its lines back.
        """

        def expand(value: str) -> str:
            return _VARIABLE.sub(lambda match: given.get(match[1], match[0]), value)

        return {"PYTHONUNBUFFERED": "1", **given, **{name: expand(value) for name, value in self.variables.items()}}

    @property
    def source(self) -> str:
        """The file whose text decides what runs: the script in the command where there is one, else the program."""
        for word in self.words[1:]:
            path = Path(self.working_directory, word)
            if not word.startswith("-") and path.is_file():
                return str(path)
        return find_program(self.words[0], self.working_directory, self.environment()) or self.words[0]


def find_program(word: str, directory: str, environment: Mapping[str, str]) -> str | None:
    """The file of a program: on PATH, or from the working directory where the word has a slash; None without one."""
    if word == THIS_PYTHON:
        return sys.executable
    if os.sep in word:
        path = os.path.join(directory, word)
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else None
    return shutil.which(word, path=environment.get("PATH"))


COMPLETE, PRUNED, PAUSED, FAIL = "complete", "pruned", "paused", "fail"
"""The states of an Outcome."""


@dataclass(frozen=True)
class StudyInfo:
    """What a worker may know of the study; it holds no connection to the storage.

    Attributes:
        directions: "minimize" or "maximize" for each metric.
        metric: the names of the metrics.
        reported_metric: the one that trials report: the only one, or the one that the pruner names.
    """

    study_name: str
    directions: Sequence[str]
    metric: Sequence[str]
    reported_metric: str | None = None

    @property
    def direction(self) -> str:
        """That of the first metric."""
        return self.directions[0]


# --- agent to worker ---


@dataclass(frozen=True)
class NodeGroup:
    """The nodes of a job that run one trial together; the first one has rank 0.

    Attributes:
        names: as SLURM calls them.
        addresses: where each of them is reached by the others.
        start: the words of the command that runs a program once on each of some nodes; in them {names} stands for the
            nodes, {number} for how many they are. The program's words follow.
        python: the words that begin a Python on these nodes, where that is not simply this Python's path.
        ranks_per_node: how many of the trial's processes run on each of them.
        gpus: the places of the trial's GPUs among those that the job has on a node, the same on each.
        variables: what each of the processes gets into its environment besides.
        log: the file of rank 0's output; the others write to files beside it.
        log_megabytes: that each of these files may have.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    ranks_per_node: int
    start: tuple[str, ...]
    python: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    log_megabytes: int = 200

    def node_of(self, rank: int) -> int:
        """The place in `names` of the node that runs this rank."""
        return rank // self.ranks_per_node

    @property
    def ranks(self) -> int:
        """The number of all processes."""
        return self.ranks_per_node * len(self.names)

    def log_of(self, rank: int) -> str:
        """The file of this rank's output."""
        return f"{self.log.removesuffix('.log')}-rank-{rank}.log" if rank else self.log


@dataclass(frozen=True)
class Setup:
    """Once, at the start: what to load.

    `command` is a program to run in place of the file `objective`. `ranks` processes run each trial, this worker being
    the first; `nodes` says where, if not all of them on this node.
    """

    objective: str
    conf: Mapping[str, Any]
    device: str
    study: StudyInfo
    command: CommandSpec | None = None
    ranks: int = 1
    nodes: NodeGroup | None = None


@dataclass(frozen=True)
class Pause:
    """Where a trial pauses to be compared with others: its report at `step` reaches the rung of that resource."""

    rung: int
    step: int


@dataclass(frozen=True)
class Assignment:
    """One trial to run.

    Attributes:
        conf: the model configuration with the trial's values in it.
        values: the declared parameters' values, by the names that they have in the study.
        names: from a parameter's key in the YAML to its name in the study.
        settings: the arguments that the YAML declares each parameter with.
        plain: the names that stand at no path of the model configuration: only the objective's own code can read them.
        distributions: what Optuna searches for each parameter, as Optuna's JSON.
        trial_id: the trial's id in the storage.
        checkpoint_dir: the trial's own directory, which is not made yet.
        user_attrs: what earlier attempts have set.
        intermediate_values: step -> value, what earlier attempts have reported.
        reports: whether the study has a metric that trials report.
        strict_pruning: whether `should_prune` waits for the decision on the last report.
    """

    number: int
    attempt: int
    conf: dict[str, Any]
    values: dict[str, Any]
    names: dict[str, str]
    settings: dict[str, dict[str, Any]]
    plain: Sequence[str]
    seed: int
    checkpoint_dir: str
    user_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    reports: bool = True
    strict_pruning: bool = False
    pause: Pause | None = None
    distributions: Mapping[str, str] = field(default_factory=dict)
    trial_id: int = -1


@dataclass(frozen=True)
class Decision:
    """Whether the trial should be pruned, seen from its report at `step`; until one comes, it should not."""

    number: int
    step: int
    prune: bool


@dataclass(frozen=True)
class Answer:
    """The answer to one question; `error` is what it was refused with.

    `question` is that of the SuggestRequest or ReadRequest: whoever asked takes no other answer for its own.
    """

    value: Any = None
    error: BaseException | None = None
    question: int = 0

    def get(self) -> Any:
        """The value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(frozen=True)
class Stop:
    """No more trials; the worker ends."""


# --- worker to agent ---


@dataclass(frozen=True)
class Started:
    """The first message of a worker that was forked: the agent does not know its process before."""

    pid: int


@dataclass(frozen=True)
class Ready:
    """The objective is loaded."""

    provenance: dict[str, Any]


@dataclass(frozen=True)
class LoadFailed:
    """The objective cannot be loaded or made; nothing can be run."""

    message: str
    detail: str


@dataclass(frozen=True)
class Report:
    """An intermediate value of a trial."""

    number: int
    step: int
    value: float


@dataclass(frozen=True)
class SuggestRequest:
    """A call of one of Optuna's suggest methods for a parameter that is not declared, or not declared like that."""

    number: int
    method: str
    arguments: dict[str, Any]
    question: int = 0


@dataclass(frozen=True)
class ReadRequest:
    """Asks for what the agent knows: an attribute of Optuna's study, or "trial", this one as it is stored.

    The answer's value is a pickle, which is made and read beside the threads that pass messages on.
    """

    number: int
    what: str
    question: int = 0


@dataclass(frozen=True)
class SetAttribute:
    """A JSON value to be kept with the trial, among its user attributes or, with `system`, its system attributes."""

    number: int
    key: str
    value: Any
    system: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a trial ended in the worker.

    Attributes:
        state: COMPLETE, PRUNED, PAUSED or FAIL.
        values: the metrics' values of a COMPLETE trial.
        metrics: everything scalar that the objective returned.
        cause: why it failed, in a few words; `error` is the text of the exception.
        seconds: the time spent in the objective.
        updates: what the objective changed in its configuration, by colon paths.
        unread: declared parameters that nothing has read.
        ends_worker: whether the worker's process can run no other trial.
        told_to_end: whether the worker got a SIGTERM while the trial ran.
        ended_at: when the objective ended, on the monotonic clock, which all processes of a machine share.
        memory: the most that the trial took, in MiB, as far as it is known, by its key in the trial's record.
    """

    state: str
    values: list[float] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None
    error: str | None = None
    seconds: float = 0.0
    updates: dict[str, Any] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    ends_worker: bool = False
    told_to_end: bool = False
    ended_at: float = 0.0
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeLost:
    """A node of the trial that runs, or what was started on it, is gone: nothing more will be heard of it."""

    name: str


@dataclass(frozen=True)
class Finished:
    """A trial has ended."""

    number: int
    outcome: Outcome
