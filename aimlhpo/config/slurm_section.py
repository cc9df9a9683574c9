"""The `slurm:` section: the jobs that run a study on a cluster."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.values import Count, CountFromZero, Flag, Lines, Script, Section, Text, illegal
from aimlhpo.suggestions import show

BatchValue = str | list[str] | None


def _batch(value: Any) -> Any:
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "sbatch options, by long name or short letter")
    return value


class SlurmSection(Section):
    """Jobs, their sbatch options, and what runs in them before Python."""

    jobs: Count = Field(default=1, description="Number of jobs, submitted as one array; each runs one agent.")
    batch: Annotated[dict[str, BatchValue], BeforeValidator(_batch)] = Field(
        default_factory=dict,
        description="Options of sbatch, by long name or short letter; null or true for options without a value, "
        "a list for repeated ones.",
    )
    kernel: Script | None = Field(
        default=None, description="Shell command that runs last before Python, in a login shell."
    )
    bash: Lines = Field(default_factory=list, description="Shell lines that run first in each job, in a login shell.")
    python: Text | None = Field(
        default=None, description="Python interpreter of the jobs; the one that submits where it is not given."
    )
    workers_per_job: Count | None = Field(
        default=None, description="Workers in each job; one per GPU of the job (or one without GPUs) where not given."
    )
    trials_per_gpu: Count = Field(default=1, description="Trials that share one GPU.")
    gpus_per_worker: Count = Field(default=1, description="GPUs that one trial trains on.")
    requeue: Flag = Field(
        default=True, description="Whether a job queues itself again at its walltime while work is left."
    )
    max_requeues: CountFromZero | None = Field(
        default=None, description="How often one job may be queued again; no limit where not given."
    )
