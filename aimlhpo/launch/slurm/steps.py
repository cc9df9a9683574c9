"""The nodes of a job, and the step that starts processes on some of them."""

from __future__ import annotations

import os
import re

from aimlhpo.launch.slurm.program import run_program

STEP = (
    "srun",
    "--nodes={number}",
    "--ntasks={number}",
    "--ntasks-per-node=1",
    "--nodelist={names}",
    "--overlap",
    "--mem=0",
    "--cpu-bind=none",
    "--mpi=none",
    "--input=none",
    "--export=ALL",
    "--job-name=aimlhpo",
)
"""How one program is started on each of the nodes {names}: it gets all that the job has there, beside the steps of
other trials, and the whole environment, which may hold a secret that the command line must not show."""

_FIELD = re.compile(r"\b(NodeName|NodeAddr)=(\S+)")


def nodes_of_job(here: str) -> tuple[list[str], list[str]]:
    """The names of the job's nodes, `here` first, and where each is reached by the others.

    A node whose address SLURM does not say now is reached by its name. There are none where scontrol does not work.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST", "")
    names = run_program("scontrol", "show", "hostnames", listed).out.split()
    names.sort(key=lambda name: name != here)
    known: dict[str, str] = {}
    for line in run_program("scontrol", "--oneliner", "show", "node", listed).out.splitlines():
        fields = dict(_FIELD.findall(line))
        known[fields.get("NodeName", "")] = fields.get("NodeAddr", "")
    return names, [known.get(name) or name for name in names]
