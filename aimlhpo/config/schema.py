"""The hyperparameter YAML as pydantic models, and `Config`, the checked configuration that everything else reads.

The sections `log` and `slurm` stand here, `optuna` in a module of its own. A model checks each key by itself and holds
its value; the JSON schema and the reference tables are derived from them.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from aimlhpo.config.fields import (
    AUTO,
    Count,
    CountFromZero,
    CountOrAuto,
    Flag,
    Lines,
    Script,
    Section,
    SectionName,
    Text,
    Weight,
    mapping,
)
from aimlhpo.config.optuna_section import OptunaSection
from aimlhpo.config.paths import StudyPaths, replace_file
from aimlhpo.config.sbatch_options import OptionValue
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import ConfigError, Problem, listing
from aimlhpo.space.search_space import SearchSpace


class MlflowSection(Section):
    """Where the study's trials appear in MLflow."""

    uri: Text = Field(
        default="",
        description="http(s)://SERVER, sqlite:///FILE, another database, or a directory; ${VARIABLE} is taken from the "
        "environment. Default: mlflow.db in save_path.",
    )
    experiment: Text = Field(default="", description="MLflow experiment of the study's runs. Default: the study_name.")


class TensorboardSection(Section):
    """Where the study's event files for TensorBoard lie."""

    directory: Text = Field(default="", description="Directory of the event files. Default: tensorboard in save_path.")


_ON_OR_OFF: dict[bool | None, Any] = {True: {}, False: None, None: None}


class LogSection(Section):
    """Where logs and results are written."""

    save_path: Text | None = Field(
        default=None, description="Directory of the study's files, used where `optuna: save_path` is not given."
    )
    max_mb_per_worker: Count = Field(
        default=200,
        description="Megabytes that the log of a worker may have. Beyond them its middle is dropped; the beginning and "
        "the newest lines stay.",
    )
    report: Flag = Field(
        default=True,
        description="Write report.html at the end of a run on this machine, where the extra `report` is installed.",
    )
    mlflow: Annotated[
        MlflowSection | None, mapping("true, a URI, or uri: URI and experiment: NAME", "uri", _ON_OR_OFF)
    ] = Field(default=None, description="Tell MLflow of every trial: true, a URI, or a mapping.")
    tensorboard: Annotated[
        TensorboardSection | None, mapping("true, a directory, or directory: DIRECTORY", "directory", _ON_OR_OFF)
    ] = Field(default=None, description="Write every trial for TensorBoard: true, a directory, or a mapping.")


class SlurmSection(Section):
    """Jobs, their sbatch options, and what runs in them before Python. A list has one for each kind of GPU."""

    name: SectionName | None = Field(
        default=None,
        description="Name of the section, in a list of several. Default: its partition (if that is one word), else its "
        "position from 0.",
    )
    jobs: Count = Field(default=1, description="Number of jobs, submitted as one array; each runs one agent.")
    keep: Flag = Field(
        default=False,
        description="Whether an agent whose job ends at its walltime submits jobs in the place of those that are "
        "missing, up to `jobs`, while trials are left.",
    )
    max_submissions: CountFromZero = Field(
        default=1000, description="Jobs that the agents of the study submit with `keep`, at most."
    )
    batch: Annotated[dict[str, OptionValue], mapping("sbatch options, by long name or short letter")] = Field(
        default_factory=dict,
        description="Options of sbatch, by long name or short letter; null or true for options without a value, "
        "a list for repeated ones.",
    )
    kernel: Script | None = Field(
        default=None, description="Shell command that runs last before Python, in a login shell."
    )
    bash: Lines = Field(default_factory=list, description="Shell lines that run first in each job, in a login shell.")
    stop_on_error: Flag = Field(
        default=True, description="Whether a line of `bash` or `kernel` that fails ends the job."
    )
    python: Text | None = Field(
        default=None, description="Python interpreter of the jobs; the one that submits where it is not given."
    )
    workers_per_job: Count | None = Field(
        default=None, description="Workers in each job; one per GPU of the job (or one without GPUs) where not given."
    )
    trials_per_gpu: CountOrAuto = Field(
        default=1,
        description="Trials that share one GPU. `auto` begins with one, and adds others while the GPU's memory and "
        "utilisation, as measured, allow it.",
    )
    max_trials_per_gpu: Count = Field(default=4, description="Trials that share one GPU with `auto`, at most.")
    gpus_per_worker: Count = Field(default=1, description="GPUs that one trial trains on, on each of its nodes.")
    nodes_per_worker: Count = Field(
        default=1, description="Nodes that one trial trains on; `batch: nodes` says how many a job has."
    )
    gpu_weight: Weight = Field(
        default=1.0, description="What an hour of one GPU of these jobs counts in `optuna: max_gpu_hours`."
    )
    requeue: Flag = Field(
        default=True, description="Whether a job queues itself again at its walltime while work is left."
    )
    max_requeues: CountFromZero | None = Field(
        default=None, description="How often one job may be queued again; no limit where not given."
    )

    @property
    def packs(self) -> bool:
        """Whether agents measure how many trials may share a GPU."""
        return self.trials_per_gpu == AUTO

    @property
    def most_trials_per_gpu(self) -> int:
        """How many trials may share a GPU."""
        return self.max_trials_per_gpu if self.packs else int(self.trials_per_gpu)


class HyperparameterFile(Section):
    """The whole file."""

    log: Annotated[LogSection, mapping("true, or save_path: DIRECTORY", words={True: {}, None: {}})] = Field(
        default_factory=LogSection, description="Where logs and results are written; `true` for the defaults."
    )
    slurm: tuple[SlurmSection, ...] = Field(
        default=(),
        description="The jobs that run the study on a SLURM cluster, or a list of such sections; without it the study "
        "runs here.",
    )
    optuna: OptunaSection = Field(description="The study: its storage, budget, strategies and search space.")


@dataclass(frozen=True)
class Config:
    """Both YAML files, checked. Plain data: it can be pickled, and holds no secret that a file did not hold.

    `space` has the parameters of both files. `section` is the name of the `slurm` section that this process is about,
    of several: that of the job it runs in, or the one that the command line names. None: it is about all of them.
    """

    log: LogSection
    sections: tuple[SlurmSection, ...]
    """Those of `slurm`: none, one, or the several of a list."""
    optuna: OptunaSection
    model: dict[str, Any]
    hyperparameters: dict[str, Any]
    """The hyperparameter YAML as data, for its copy beside the study and for objectives; no check reads it."""
    space: SearchSpace
    storage_named: bool = field(default=True, compare=False)
    """False where no `storage` was given and the default was taken."""
    section: str | None = None

    @property
    def slurm(self) -> SlurmSection | None:
        """The section that this process is about; where that is none of several, the first.

        Jobs of a section of the past go by the first's settings, too, but nobody keeps up their number.
        """
        chosen = [each for each in self.sections if each.name == self.section]
        found = next(iter((*chosen, *self.sections)), None)
        return found.model_copy(update={"keep": False}) if found and self.section_is_gone else found

    @property
    def section_is_gone(self) -> bool:
        """Whether the file has the section no more that this process is about, though jobs of it may be left."""
        return self.section is not None and self.section not in [each.name for each in self.sections]

    def in_section(self, name: str | None) -> Config:
        """The same, about the section with that name; None: the first. Raises ConfigError where there is none."""
        names = [each.name or "" for each in self.sections]
        if name is None:
            name = next(iter(names), None)
        elif name not in names:
            legal = listing(filter(None, names)) or "no --section: `slurm` is no list of several"
            raise ConfigError(Problem("--section", f"the study has no section {name!r}", legal))
        return replace(self, section=name) if len(names) > 1 else self

    def by_section(self) -> list[Config]:
        """One for each section that this one is about."""
        names = [each.name for each in self.sections] if self.section is None else []
        return [replace(self, section=name) for name in names] if len(names) > 1 else [self]

    def keys_of(self, section: SlurmSection) -> tuple[str, ...]:
        """Where the keys of a section lie: in `slurm`, and there under its name where that is a list."""
        is_list = isinstance(self.hyperparameters.get("slurm"), list)
        return ("slurm", section.name or "") if is_list else ("slurm",)

    @property
    def paths(self) -> StudyPaths:
        """Where the study keeps its files."""
        return StudyPaths(Path(self.optuna.save_path), self.optuna.study_name)

    def conf(self) -> dict[str, Any]:
        """What objectives see before substitution: the model config, and the `optuna` section under "optuna"."""
        conf = copy.deepcopy(self.model)
        conf["optuna"] = copy.deepcopy(self.hyperparameters["optuna"])
        return conf

    def enqueued(self) -> list[dict[str, Any]]:
        """The trials of `enqueue`, by study name."""
        names = {key: parameter.name for key, parameter in self.space.by_key.items()}
        return [{names.get(key, key): value for key, value in entry.items()} for entry in self.optuna.enqueue]

    def with_n_trials(self, n_trials: int) -> Config:
        """The same study with another number of trials."""
        optuna = {**self.hyperparameters["optuna"], "n_trials": n_trials}
        hyperparameters = {**self.hyperparameters, "optuna": optuna}
        typed = self.optuna.model_copy(update={"n_trials": n_trials})
        return replace(self, hyperparameters=hyperparameters, optuna=typed)

    def write_snapshot(self) -> None:
        """Keep both files beside the study, for the user alone (mode 0600). Raises OSError."""
        os.makedirs(self.paths.snapshot, mode=0o700, exist_ok=True)
        replace_file(self.paths.hyperparameters, dump_yaml(self.hyperparameters), 0o600)
        replace_file(self.paths.model, dump_yaml(self.model), 0o600)
