"""The batch script of a job array: a pure function of the submission.

submitit's own script does not serve here. It starts the command in every task with srun (`ntasks: 8`, meant
as eight CPUs, would start eight agents), takes options from a mapping (so none twice), starts no login shell,
sends its signal to job steps only, and cannot be made where srun is not installed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from aimlhpo.config.paths import StudyPaths
from aimlhpo.launch.slurm.plan import AgentPython, Submission
from aimlhpo.launch.slurm.program import DEFAULT_SIGNAL, parse_signal_option
from aimlhpo.launch.slurm.queue import FAILURE_SUFFIX
from aimlhpo.processes import run_module_code

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
