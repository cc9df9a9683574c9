"""The batch script, compared whole: what SLURM gets is what these files hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aimlhpo.launch.slurm.plan import AgentPython, Submission
from aimlhpo.launch.slurm.sbatch import quote_for_sbatch, render_script
from tests.launch.slurm.requests import make_submission

SCRIPTS = Path(__file__).parent / "scripts"
OPTIONS = (
    ("job-name", "echo"), ("gres", "gpu:v100:1"), ("ntasks", "8"), ("time", "12:00:00"),
    ("mail-type", "END"), ("mail-type", "FAIL"), ("exclusive", None), ("comment", 'two "quoted" words'),
    ("nodes", "1"), ("signal", "B:USR1@120"), ("output", "echo_%a.out"), ("requeue", None),
)  # fmt: skip
SUBMISSIONS = {
    "one_job": make_submission(),
    "twenty_jobs": make_submission(jobs=20, options=OPTIONS),
    "four_at_once_from_twenty": make_submission(jobs=5, first=20, at_once=4),
    "kernel_and_bash": make_submission(
        bash=("module load cuda", "export NCCL_DEBUG=INFO"),
        kernel=("conda activate torch",),
        python=AgentPython(("/opt/env/bin/python",), prefer_activated=True),
    ),
    "bash_only": make_submission(
        bash=("source /opt/site.sh",), python=AgentPython(("/opt/env/bin/python",), prefer_activated=True)
    ),
    "container": make_submission(
        python=AgentPython(("apptainer", "exec", "--nv", "my image.sif", "python"), path="/home/ada/aimlhpo")
    ),
    "a_path_with_blanks": make_submission(save_path="/scratch/ada's runs/$(touch x)"),
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_script(name: str) -> None:
    assert render_script(SUBMISSIONS[name]) == (SCRIPTS / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_script_is_one_that_bash_can_read(name: str) -> None:
    subprocess.run(["bash", "-n"], input=render_script(SUBMISSIONS[name]), text=True, check=True)


@pytest.mark.parametrize("submission", SUBMISSIONS.values(), ids=SUBMISSIONS)
def test_the_agent_takes_the_place_of_the_shell(submission: Submission) -> None:
    last = render_script(submission).splitlines()[-1]
    assert last.startswith("exec ")
    assert " aimlhpo agent " in last
    assert render_script(submission).count("aimlhpo agent") == 1


def test_the_users_own_signal_is_held_back_until_the_agent_listens() -> None:
    assert "trap '' HUP USR1 USR2\n" in render_script(make_submission(options=(("signal", "B:SIGHUP@60"),)))


def test_only_the_options_are_directives() -> None:
    script = render_script(make_submission(bash=("#SBATCH --time=1", "date")))
    before_commands = script.split("trap")[0]
    assert "--time" not in before_commands


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("12:00:00", "12:00:00"),
        ("gpu:v100:1", "gpu:v100:1"),
        ("two words", '"two words"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("it's # no comment", '"it\'s # no comment"'),
        ("$(touch x)", '"$(touch x)"'),
        ("", '""'),
        ("my-hetjob", r"my-het\job"),
    ],
)
def test_values_are_quoted_as_sbatch_reads_them(value: str, written: str) -> None:
    assert quote_for_sbatch(value) == written
