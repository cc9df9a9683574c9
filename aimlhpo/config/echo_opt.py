"""The keys of NCAR's echo-opt, whose hyperparameter files look like ours: what each of them is called here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.config.edits import Edit, edit_data
from aimlhpo.config.fields import as_list
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import Problem
from aimlhpo.space.parameter_types import as_number

_GPU_MODEL = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[\w:-]+")  # v100, gpu:a100, but no mistyped `true`
_PBS_RESOURCE = re.compile(r"(\w+)=(\d+:\d+:\d+|[^:,=\s]+)")
_SBATCH_OPTIONS = {
    "A": "account", "q": "partition", "N": "job-name", "o": "output", "e": "error",
    "walltime": "time", "ncpus": "cpus-per-task", "ngpus": "gpus-per-node", "mem": "mem",
}  # fmt: skip
"""sbatch's names of what qsub is told."""


def echo_opt_edits(data: Mapping[str, Any]) -> list[Edit]:
    """The changes that make a file of echo-opt's one of ours; none for a file without keys of echo-opt's own."""
    slurm, optuna = (data[key] if isinstance(data.get(key), dict) else {} for key in ("slurm", "optuna"))
    return [*_of_file(data, optuna), *_of_slurm(slurm, optuna), *_of_optuna(optuna)]


def _of_file(data: Mapping[str, Any], optuna: Mapping[str, Any]) -> Iterator[Edit]:
    if "save_path" in data and optuna:
        if "save_path" in optuna:
            yield Edit(("save_path",), why="optuna: save_path is there")
        else:
            yield Edit(("save_path",), ("optuna", "save_path"), data["save_path"])
    pbs = data.get("pbs")
    if pbs is not None and "slurm" in data:
        yield Edit(("pbs",), why="jobs are submitted to SLURM, and there is a section for it")
    elif isinstance(pbs, dict):
        yield Edit(("pbs",), ("slurm",), _as_slurm(pbs, optuna), "jobs are submitted to SLURM; look it through")


def _of_slurm(slurm: Mapping[str, Any], optuna: Mapping[str, Any]) -> Iterator[Edit]:
    """The processes in a job: echo-opt starts so many for each job, or so many for each of the node's GPUs."""
    if "trials_per_job" in slurm:
        yield Edit(("slurm", "trials_per_job"), ("slurm", "workers_per_job"), slurm["trials_per_job"])
    if "gpus_per_node" in slurm:
        yield Edit(("slurm", "gpus_per_node"), why="a job has one worker for each GPU that batch asks for")
    if "tasks_per_worker" in slurm:
        tasks, gpus = slurm["tasks_per_worker"], as_number(slurm.get("gpus_per_node"))
        if not optuna.get("gpu"):
            number = tasks * gpus if gpus and isinstance(tasks, int) else tasks
            yield Edit(("slurm", "tasks_per_worker"), ("slurm", "workers_per_job"), number)
        else:
            yield Edit(("slurm", "tasks_per_worker"), ("slurm", "trials_per_gpu"), tasks)


def _of_optuna(optuna: Mapping[str, Any]) -> Iterator[Edit]:
    if "storage_type" in optuna:
        yield Edit(("optuna", "storage_type"), why="the storage itself says what it is")
    gpu = optuna.get("gpu")
    if isinstance(gpu, str) and as_number(gpu) is None and _GPU_MODEL.fullmatch(gpu):
        yield Edit(("optuna", "gpu"), ("optuna", "gpu"), True)


def _as_slurm(pbs: Mapping[str, Any], optuna: Mapping[str, Any]) -> dict[str, Any]:
    """The section for jobs that PBS has run, with those options that sbatch has, too."""
    options: dict[str, Any] = dict(pbs["batch"]) if isinstance(pbs.get("batch"), dict) else {}
    options.update(_PBS_RESOURCE.findall(" ".join(map(str, as_list(options.pop("l", ""))))))
    batch = {new: options[old] for old, new in _SBATCH_OPTIONS.items() if old in options}
    if "mem" in batch:  # 128GB is sbatch's 128G
        batch["mem"] = str(batch["mem"]).upper().removesuffix("B")
    file = {"slurm": {**pbs, "batch": batch}}
    edit_data(file, list(_of_slurm(pbs, optuna)))
    return file["slurm"]


def pbs_problem(edits: list[Edit]) -> Problem | None:
    """What to say where the file's jobs are for PBS alone."""
    for edit in edits:
        if edit.path == ("pbs",) and edit.to is not None:
            section = dump_yaml({"slurm": edit.value}).rstrip().replace("\n", "\n        ")
            legal = f"this section for a SLURM cluster, or none, and --local in a job of your own\n        {section}"
            return Problem("pbs", "jobs are submitted to SLURM, and not to PBS", legal)
    return None
