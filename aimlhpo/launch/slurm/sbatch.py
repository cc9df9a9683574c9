"""The batch script of a job array, a pure function of the submission; and submitting it, the only side effect.

The scripts go to sbatch through submitit, which keeps a copy of each and runs the command. What was submitted is
recorded in save_path, one file for each array. submitit's own script does not serve here. It starts the command in
every task with srun (`ntasks: 8`, meant as eight CPUs, would start eight agents), takes options from a mapping (so none
twice), starts no login shell, sends its signal to job steps only, and cannot be made where srun is not installed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import SubmissionError
from aimlhpo.launch.base import submit_command
from aimlhpo.launch.slurm.plan import AgentPython, Submission, log_directory, one_log_per_array, plan_submission
from aimlhpo.launch.slurm.program import (
    DEFAULT_SIGNAL,
    cluster_option,
    parse_signal_option,
    require_program,
    run_program,
)
from aimlhpo.launch.slurm.queue import (
    FAILURE_SUFFIX,
    JobArray,
    KeptJobs,
    query_jobs_of_study,
    read_kept_jobs,
    recorded_arrays,
    write_array,
    write_kept_jobs,
)
from aimlhpo.processes import run_module_code
from aimlhpo.storage.locks import locked

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_SAFE = re.compile(r"[A-Za-z0-9_./:,@%+=\-\[\]*]+")
_DIRECTIVE = re.compile("(het|pack)(job)", re.IGNORECASE)

_ON_PATH = "$(command -v python || command -v python3 || :)"
_PROBE = "import aimlhpo.config, optuna, submitit"

# A failing line of the user's ends the job and is named: here, and by `aimlhpo status`. `set -e` would also end it
# where a command fails inside a function or a file of others (module, conda, a site's profile), which may not mind.
_NAME_FAILURE = """\
aimlhpo_script=${BASH_SOURCE[0]-}
aimlhpo_failed() {
    [ "$3" = "$aimlhpo_script" ] || return 0
    aimlhpo_line=$(sed -n "$4p" "$aimlhpo_script" 2>/dev/null)
    aimlhpo_line="slurm: exit status $1 of the line: ${aimlhpo_line:-$2}"
    echo "aimlhpo: $aimlhpo_line (stop_on_error: false goes on)" >&2
    (umask 077; echo "$aimlhpo_line" >%s) || :
    exit "$1"
}
trap 'aimlhpo_failed $? "$BASH_COMMAND" "${BASH_SOURCE[0]-}" "$LINENO"' ERR
"""
SBATCH_TIMEOUT = 180
"""Seconds for sbatch to get its answer, its own retries included."""
_TIMED_OUT = frozenset({124, 137})  # exit codes of `timeout`
_ANSWER = re.compile(r"^(\d+)(?:;(\S+))?$", re.MULTILINE)
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)

# Variables of the job that this command itself may be running in; they would pass for the new job's own.
_OF_A_JOB = re.compile(
    r"SLURM_(JOB|ARRAY|STEP|TASK|NTASKS|NPROCS|NNODES|NODE|CPU|MEM_|GPU|GTIDS|HET|TRES|RESTART|PROCID|LOCALID"
    r"|SUBMIT|DIST|PRIO|LAUNCH|SRUN|EXPORT|SHARDS|OVERCOMMIT|THREADS|CORES|TOPOLOGY|SCRIPT|CLUSTER_NAME)"
    r"|SLURMD_|(CUDA|ROCR|HIP)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$"
)
# sbatch takes a variable over a line of the script: a profile's default must not undo what the study says.
_MEMORY = ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU")
_VARIABLES = {
    "clusters": ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"),
    "hint": ("SBATCH_HINT", "SLURM_HINT"),
    "mem": _MEMORY,
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
    "switches": ("SBATCH_REQ_SWITCH", "SBATCH_WAIT4SWITCH"),
    "time": ("SBATCH_TIMELIMIT",),
}
_NEVER = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_DEBUG")


def render_script(submission: Submission) -> str:
    """The whole text of the script: its parts, with a blank line between them."""
    return "\n".join(_parts(submission))


def _parts(submission: Submission) -> Iterator[str]:
    python, save_path = submission.python, submission.save_path
    last = submission.first + submission.jobs - 1
    limit = "" if submission.at_once is None else f"%{submission.at_once}"
    array = ("array", f"{submission.first}-{last}{limit}")
    directives = (sbatch_directive(name, value) for name, value in (array, *submission.options))
    yield "#!/bin/bash -l\n" + _lines(directives)

    # Until the agent listens, the default action of these signals would end the job.
    announced = parse_signal_option(submission.value("signal")) or DEFAULT_SIGNAL
    yield f"trap '' {' '.join(sorted({'USR1', 'USR2', announced.name.removeprefix('SIG')}))}\n"

    # The user's lines. Which Python was there before them tells whether they activate another.
    if python.prefer_activated:
        yield f"aimlhpo_before={_ON_PATH}\n"
    named = submission.stop_on_error and bool(submission.bash or submission.kernel)
    paths = StudyPaths(Path(save_path), submission.study)
    if named:
        yield _NAME_FAILURE % failure_file(shlex.quote(str(paths.jobs)))
    if submission.bash:
        yield _lines(submission.bash)
    if submission.kernel:
        yield _lines(submission.kernel)
    if named:
        yield "trap - ERR\n"

    # The study has to be there on every node; said in plain words before Python starts.
    yield (
        f"[ -r {shlex.quote(str(paths.hyperparameters))} ] || {{\n"
        f"    echo aimlhpo: {shlex.quote(save_path)} does not hold the study on node"
        ' "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2\n'
        "    exit 2\n}\n"
    )

    # The agent takes the place of the batch shell, so that SLURM's signals reach it.
    command, module = shlex.join(python.command), "-m"
    if python.path is not None:
        module = f"-c {shlex.quote(run_module_code(python.path))}"
    agent = f"-u -P {module} aimlhpo agent {shlex.quote(save_path)}"
    if submission.section is not None:
        agent += f" --section {shlex.quote(submission.section)}"
    if python.prefer_activated:
        yield f'aimlhpo_python={command}\n{_prefer_activated(python)}exec "$aimlhpo_python" {agent}\n'
    else:
        yield f"exec {command} {agent}\n"


def _prefer_activated(python: AgentPython) -> str:
    """Take the Python that `kernel:` or `bash:` have activated; which one that is, is known in the job alone."""
    probe = _PROBE if python.path is None else f"import sys; sys.path.insert(0, {python.path!r}); {_PROBE}"
    return f"""\
aimlhpo_found={_ON_PATH}
if [ -z "$aimlhpo_found" ] || [ "$aimlhpo_found" = "$aimlhpo_before" ]; then
    :
elif aimlhpo_error=$("$aimlhpo_found" -P -c {shlex.quote(probe)} 2>&1); then
    aimlhpo_python=$aimlhpo_found
else
    echo "aimlhpo: $aimlhpo_found cannot run aimlhpo: ${{aimlhpo_error##*$'\\n'}}"
fi
"""


def failure_file(folder: str) -> str:
    """The shell's word for the file of this job that says why it failed, in a folder that is quoted for the shell."""
    return f'{folder}/"${{SLURM_ARRAY_JOB_ID:-${{SLURM_JOB_ID-}}}}_${{SLURM_ARRAY_TASK_ID-}}"{FAILURE_SUFFIX}'


def _lines(lines: Iterator[str] | tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in lines)


def sbatch_directive(name: str, value: str | None) -> str:
    """One `#SBATCH` line, with the value quoted the way sbatch reads it (which is not the shell's way)."""
    return f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={quote_for_sbatch(value)}"


def quote_for_sbatch(value: str) -> str:
    """`value` as sbatch's reader of script lines takes it: a backslash is special within single quotes, too.

    The words `hetjob` and `packjob` are directives wherever they stand in a line; a backslash breaks them up.
    """
    text = value if _SAFE.fullmatch(value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return _DIRECTIVE.sub(r"\1\\\2", text)


# --- submitting ---


@dataclass(frozen=True)
class SubmittedJobs:
    """What was submitted."""

    submission: Submission
    arrays: tuple[JobArray, ...]
    before: int
    """Jobs of the study that were in the queue already."""


class _PartlySubmitted(SubmissionError):
    """Some arrays of a section were submitted, and the others were not."""


def submit_sections(config: Config, *, jobs: int | None = None) -> list[SubmittedJobs]:
    """Submit the jobs of each section that the configuration is about, as `submit_jobs` does.

    Raises SubmissionError, which says what was submitted before, ConfigError, OSError.
    """
    done: list[SubmittedJobs] = []
    sections = config.by_section()
    for each in sections:
        plan_submission(each, jobs)  # a mistake in the last is told before the first is submitted
    for each in sections:
        try:
            done.append(submit_jobs(each, jobs=jobs))
        except SubmissionError as error:
            begun = isinstance(error, _PartlySubmitted)  # it names the command for the others of this section
            if len(sections) == 1 or not (done or begun):
                raise
            said = [f"section {each.section}: {error}"]
            if done:
                before = ", ".join(array.label for one in done for array in one.arrays)
                said.append(f"    Of other sections, {before} were submitted before.")
            if rest := sections[len(done) + begun :]:
                commands = (submit_command(config.paths.save_path, other.section, jobs) for other in rest)
                said.append(f"    The rest: {'; '.join(commands)}")
            raise SubmissionError("\n".join(said)) from error
    return done


def submit_jobs(config: Config, *, jobs: int | None = None) -> SubmittedJobs:
    """Submit `jobs` jobs (by default the section's number), as one array where the cluster allows its size.

    The caller has made the study. What was known of jobs that the user took away does not count any more. Raises
    ConfigError, SubmissionError, OSError.
    """
    submission = plan_submission(config, jobs)
    require_program("sbatch")
    limit = max_array_size(submission.value("clusters"))
    paths = config.paths
    paths.create()
    config.write_snapshot()
    with locked(paths.kept_jobs_lock):
        kept = read_kept_jobs(config)
        done = submit_arrays(submission, limit, paths)
        write_kept_jobs(config, KeptJobs(since=done.arrays[0].submitted, submitted=kept.submitted))
    return done


def submit_from_job(config: Config, *, jobs: int, after: str) -> SubmittedJobs:
    """Submit jobs from within the job `after`, which begin when that has ended. The caller holds the lock.

    Raises ConfigError, SubmissionError, OSError.
    """
    submission = plan_submission(config, jobs)
    require_program("sbatch")
    given = submission.value("dependency")
    if "?" not in (given or ""):  # one of several is enough there, and cannot go together with "all of them"
        others = tuple(option for option in submission.options if option[0] != "dependency")
        wanted = ",".join(filter(None, (given, f"afterany:{after}")))
        submission = replace(submission, options=(*others, ("dependency", wanted)))
    return submit_arrays(submission, max_array_size(submission.value("clusters")), config.paths)


def submit_arrays(submission: Submission, limit: int, paths: StudyPaths) -> SubmittedJobs:
    """Submit all jobs in arrays with indices below `limit`. Raises SubmissionError, OSError."""
    for name in (submission.log, submission.value("error")):
        directory = log_directory(name) if name else None
        if directory is not None:  # SLURM fails a job in silence when the directory of its output is missing
            directory.mkdir(parents=True, exist_ok=True)

    # Beside living jobs the new ones go on counting, so that none writes into another's log file.
    known = query_jobs_of_study(paths) if recorded_arrays(paths) else None
    living = [job for job in known or () if not job.ended]
    first = max((job.index or 0 for job in living), default=-1) + 1
    submission = submission.with_elements(first, submission.jobs)

    arrays: list[JobArray] = []
    for part in split_submission(submission, limit):
        try:
            job_id, cluster, script = _run_sbatch(part, paths.jobs)
        except SubmissionError as error:
            if not arrays:
                raise
            count = sum(array.count for array in arrays)
            more = submit_command(submission.save_path, submission.section, submission.jobs - count)
            raise _PartlySubmitted(
                f"{error}\n    Of {submission.jobs} jobs, {count} were submitted before: "
                f"{', '.join(array.label for array in arrays)}.\n"
                f"    The others: {more}"
            ) from error
        python = " ".join(part.python.command)
        made = JobArray(job_id, part.jobs, part.first, cluster, script, part.log, python, section=part.section)
        arrays.append(made)
        write_array(paths, arrays[-1])
    return SubmittedJobs(submission, tuple(arrays), len(living))


def max_array_size(cluster: str | None) -> int:
    """How many elements an array can have. Raises SubmissionError where SLURM does not answer."""
    answer = run_program("scontrol", *cluster_option(cluster), "show", "config")
    match = _MAX_ARRAY_SIZE.search(answer.out)
    if not answer.ok or match is None:
        raise SubmissionError(
            f"SLURM does not answer: {answer.message or 'scontrol show config says nothing'}\n"
            "    No job was submitted; the study is there, submit again when SLURM is back."
        )
    if int(match[1]) < 1:
        raise SubmissionError("this cluster allows no job arrays (MaxArraySize is 0): ask its administrators")
    return int(match[1])


def split_submission(submission: Submission, limit: int) -> list[Submission]:
    """Arrays with indices below `limit`; more jobs than that count from 0 again, in an array of their own.

    Several arrays have elements of the same index, so their output files are told apart by the array's id, too.
    """
    if submission.first + submission.jobs <= limit:
        return [submission]
    options = tuple(
        (name, one_log_per_array(value) if value and name in ("output", "error") else value)
        for name, value in submission.options
    )
    apart = replace(submission, options=options, log=one_log_per_array(submission.log))
    starts = range(0, submission.jobs, limit)
    return [apart.with_elements(0, min(limit, submission.jobs - start)) for start in starts]


def _run_sbatch(submission: Submission, folder: Path) -> tuple[str, str | None, str]:
    """Submit one array, keeping its script in `folder`.

    Returns the job id, the cluster, and the script's file name, which SLURM shows as the job's command. Raises
    SubmissionError with SLURM's own words.
    """
    require_program("sbatch")
    executor = _ScriptExecutor(folder, render_script(submission), variables_to_unset(submission, os.environ))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            executor._submit_command("")
    except (FailedJobError, FailedSubmissionError) as error:
        if executor.script.is_file():
            executor.script.unlink()
        cause = error.__cause__
        if isinstance(cause, subprocess.CalledProcessError) and cause.returncode in _TIMED_OUT:
            raise SubmissionError(
                f"sbatch got no answer from SLURM within {SBATCH_TIMEOUT} s: {error}\n"
                "    Look at `squeue --me` before submitting again: the jobs may have been accepted.\n"
                "    If they were, they belong to the study as soon as they start."
            ) from error
        reason = "\n".join(f"    {line}" for line in str(error).strip().splitlines()) or "    (it gave no reason)"
        raise SubmissionError(
            f"sbatch did not take the jobs:\n{reason}\n    None was submitted; try again when this is mended."
        ) from error
    return *parse_sbatch_answer(executor.answer), executor.script.name


class _ScriptExecutor(SlurmExecutor):
    """submitit's way to submit, with our script in place of its own, and no pickles."""

    def __init__(self, folder: Path, text: str, unset: Iterable[str]) -> None:
        super().__init__(folder)
        self.text = text
        self.unset = unset
        self.script = folder
        self.answer = ""

    @classmethod
    def affinity(cls) -> int:
        return 1  # srun, which submitit looks for, is not needed

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self.text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        os.chmod(submission_file_path, 0o700)
        self.script = submission_file_path
        without = [f"--unset={name}" for name in self.unset]
        bounded = ["timeout", "--foreground", "--kill-after=5", str(SBATCH_TIMEOUT)]
        return ["env", *without, *bounded, "sbatch", "--parsable", str(submission_file_path)]

    def _get_job_id_from_submission_command(self, string: bytes | str) -> str:  # type: ignore[override]
        self.answer = string if isinstance(string, str) else string.decode()
        return parse_sbatch_answer(self.answer)[0]


def parse_sbatch_answer(answer: str) -> tuple[str, str | None]:
    """The job id and the cluster's name from the answer of `sbatch --parsable`."""
    match = _ANSWER.search(answer)
    if match is None:
        raise FailedSubmissionError(f"sbatch answered {answer.strip()!r}, which holds no job id")
    return match[1], match[2]


def variables_to_unset(submission: Submission, environment: Iterable[str]) -> list[str]:
    """The variables that sbatch must not see: another job's, and those that undo what the script says."""
    undo = set(_NEVER)
    for name, _ in submission.options:
        undo.update(_VARIABLES.get(name, (f"SBATCH_{name.upper().replace('-', '_')}",)))
    return sorted(name for name in environment if name in undo or _OF_A_JOB.match(name))
