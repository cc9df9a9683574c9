"""SLURM's own programs and formats: running squeue and the like, lengths of time, the option `--signal`, and the nodes
of a job with the step that starts processes on some of them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass

from aimlhpo.errors import SubmissionError

PROGRAM_TIMEOUT = 30.0
"""Seconds to wait for an answer of squeue, scontrol and scancel."""
DEFAULT_SIGNAL = signal.SIGUSR1
"""What announces the end of a job's time limit, where the study says nothing else."""

_UNREACHABLE = re.compile(
    "unable to contact|connection refused|timed out|zero bytes|standby mode|configuration source|communication",
    re.IGNORECASE,
)
_SIGNAL_OPTION = re.compile(r"(?:[RB]+:)?(?:SIG)?([A-Za-z0-9]+)(?:@\d+)?", re.IGNORECASE)
_NOT_FREE = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD})
_TIME_LIMIT = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})$")
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


@dataclass(frozen=True)
class ProgramOutput:
    """What a program answered; `code` is None where it could not be run or did not answer in time.

    `message` is what it wrote to standard error, or why it could not be run.
    """

    code: int | None
    out: str
    message: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def is_unreachable(self) -> bool:
        """Whether SLURM was not there to answer, as opposed to refusing."""
        return self.code is None or bool(_UNREACHABLE.search(self.message))


def run_program(*command: str, timeout: float = PROGRAM_TIMEOUT) -> ProgramOutput:
    """Run one of SLURM's programs for `timeout` seconds at most; a failure is part of the answer, never raised."""
    # Times as seconds since 1970, and none of the formats that users set for themselves.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={**kept, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        return ProgramOutput(None, "", f"{command[0]} is not installed on this machine")
    except OSError as error:
        return ProgramOutput(None, "", f"{command[0]} cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired:
        return ProgramOutput(None, "", f"{command[0]} got no answer from SLURM in {timeout:.0f} s")
    return ProgramOutput(done.returncode, done.stdout, done.stderr.strip())


def require_program(program: str) -> None:
    """Raise SubmissionError where `program` is not installed."""
    if shutil.which(program) is None:
        raise SubmissionError(
            f"{program} is not on PATH: this machine does not belong to a SLURM cluster.\n"
            "    Submit from a login node, or run here with --local; --dry-run shows the script anywhere."
        )


def cluster_option(cluster: str | None) -> tuple[str, ...]:
    """The option that sends a command to another cluster than this machine's own; empty for this one."""
    return () if cluster is None else (f"--clusters={cluster}",)


def parse_signal_option(option: str | None) -> signal.Signals | None:
    """The signal that `--signal` names, as `USR1@300` or `B:10`; None where it cannot announce the time limit.

    Without an option it is `DEFAULT_SIGNAL`.
    """
    if option is None:
        return DEFAULT_SIGNAL
    match = _SIGNAL_OPTION.fullmatch(option.strip())
    if match is None:
        return None
    name = match[1]
    try:
        found = signal.Signals(int(name)) if name.isdigit() else signal.Signals[f"SIG{name.upper()}"]
    except (KeyError, ValueError):
        return None
    return None if found in _NOT_FREE else found


def seconds_of_time_limit(text: str) -> int | None:
    """`90`, `30:00`, `12:00:00`, `2-12`, `1-00:30`... in seconds; None for UNLIMITED and for what is no time.

    A number alone is minutes, as SLURM reads it.
    """
    match = _TIME_LIMIT.match(text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    # After days the first part is hours; without days, one or two parts begin with minutes.
    units = (3600, 60, 1) if match["days"] or len(parts) == 3 else (60, 1)
    return int(match["days"] or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=False))


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
