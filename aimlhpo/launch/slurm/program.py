"""Running SLURM's own programs, each bounded in time, with SLURM's own words kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from aimlhpo.errors import SubmissionError

TIMEOUT = 30.0
"""Seconds to wait for an answer of squeue, scontrol and scancel."""

_UNREACHABLE = re.compile(
    "unable to contact|connection refused|timed out|zero bytes|standby mode|configuration source|communication",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """What a program said; `code` is None where it could not be run or said nothing in time."""

    code: int | None
    out: str
    words: str

    @property
    def ok(self) -> bool:
        return self.code == 0


def ask(*command: str, timeout: float = TIMEOUT) -> Answer:
    """Run one of SLURM's programs; never raises for what it answers."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        return Answer(None, "", f"{command[0]} is not installed on this machine")
    except OSError as error:
        return Answer(None, "", f"{command[0]} cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{command[0]} got no answer from SLURM in {timeout:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def is_silence(answer: Answer) -> bool:
    """Whether SLURM was not there to answer, as against saying no."""
    return answer.code is None or bool(_UNREACHABLE.search(answer.words))


def require(program: str) -> None:
    """Raise SubmissionError where `program` is not installed."""
    if shutil.which(program) is None:
        raise SubmissionError(
            f"{program} is not on PATH: this machine does not belong to a SLURM cluster.\n"
            "    Submit from a login node, or run here with --local; --dry-run shows the script anywhere."
        )


def on_cluster(cluster: str | None) -> Sequence[str]:
    """The option that sends a question to another cluster than this machine's own."""
    return () if cluster is None else (f"--clusters={cluster}",)


def _environment() -> dict[str, str]:
    """Times as seconds since 1970, and no format of the user's own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}
    return {**mine, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
