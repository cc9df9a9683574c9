"""The rendered script, run by bash: what happens before the agent, and which Python becomes the agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.launch.slurm.plan import plan_submission
from aimlhpo.launch.slurm.queue import JobArray, failures_of, write_array
from aimlhpo.launch.slurm.sbatch import render_script
from tests.launch.slurm.requests import make_config

CAN_IMPORT, CANNOT_IMPORT = 0, 1


def fake_python(directory: Path, name: str, imports: int = CAN_IMPORT) -> Path:
    """A `python` that says its name and its last argument; asked by code, it can or cannot import aimlhpo.

    The agent is run by code, too, where aimlhpo is not among the installed packages.
    """
    directory.mkdir(parents=True)
    python = directory / "python"
    python.write_text(f"""\
#!/bin/bash
for word; do
    if [ "$before" = -c ] && [[ $word != *runpy* ]]; then
        echo "No module named x" >&2
        exit {imports}
    fi
    before=$word
done
echo "{name}: ${{@: -1}}"
""")
    python.chmod(0o755)
    return python


@pytest.fixture
def submitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    python = fake_python(tmp_path / "submitting", "submitting")
    monkeypatch.setattr(sys, "executable", str(python))
    return python


def run_script(config: Any, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a job would, in a login shell with a home of its own."""
    (tmp_path / "home").mkdir(exist_ok=True)
    config.write_snapshot()
    script = tmp_path / "slurm_script"
    script.write_text(render_script(plan_submission(config)))
    return subprocess.run(
        ["bash", "-l", str(script)], text=True, capture_output=True, cwd=tmp_path, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), **variables},
    )  # fmt: skip


def run(config: Any, tmp_path: Path, **variables: str) -> list[str]:
    """The lines that the script writes."""
    done = run_script(config, tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_bash_then_kernel_then_the_agent_in_a_login_shell(tmp_path: Path, submitting: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".bash_profile").write_text("module() { echo module $1; }\n")
    config = make_config(tmp_path / "run", bash=["echo one", "echo two\necho three"], kernel="module cuda")
    lines = run(config, tmp_path)
    assert lines == ["one", "two", "three", "module cuda", f"submitting: {tmp_path}/run"]


def test_kernel_activates_another_python(tmp_path: Path, submitting: Path) -> None:
    other = fake_python(tmp_path / "env", "activated")
    lines = run(make_config(tmp_path / "run", kernel=f"export PATH={other.parent}:$PATH"), tmp_path)
    assert lines[-1].startswith("activated: ")


def test_bash_activates_another_python(tmp_path: Path, submitting: Path) -> None:
    other = fake_python(tmp_path / "env", "activated")
    lines = run(make_config(tmp_path / "run", bash=[f"export PATH={other.parent}:$PATH"]), tmp_path)
    assert lines[-1].startswith("activated: ")


def test_lines_that_activate_nothing_leave_the_submitting_python(tmp_path: Path, submitting: Path) -> None:
    there = fake_python(tmp_path / "there", "there before")
    config = make_config(tmp_path / "run", bash=["export X=1"], kernel="export Y=1")
    lines = run(config, tmp_path, PATH=f"{there.parent}:/usr/bin:/bin")
    assert lines[-1].startswith("submitting: ")


def test_a_python_that_cannot_import_aimlhpo_is_passed_over_and_named(tmp_path: Path, submitting: Path) -> None:
    other = fake_python(tmp_path / "env", "activated", CANNOT_IMPORT)
    lines = run(make_config(tmp_path / "run", kernel=f"export PATH={other.parent}:$PATH"), tmp_path)
    assert lines[-2] == f"aimlhpo: {other} cannot run aimlhpo: No module named x"
    assert lines[-1].startswith("submitting: ")


def test_python_of_the_config_comes_before_all(tmp_path: Path, submitting: Path) -> None:
    other = fake_python(tmp_path / "env", "activated")
    named = fake_python(tmp_path / "named env", "named")
    config = make_config(tmp_path / "run", kernel=f"export PATH={other.parent}:$PATH", python=f"'{named}' -X dev")
    assert run(config, tmp_path)[-1].startswith("named: ")


def test_a_node_that_does_not_see_the_study_says_so(tmp_path: Path, submitting: Path) -> None:
    script = render_script(plan_submission(make_config(tmp_path / "it's here")))
    done = subprocess.run(
        ["bash", "-l"], input=script, text=True, capture_output=True, env={"SLURMD_NODENAME": "gpu7"}, check=False
    )
    assert done.returncode == 2
    assert f"{tmp_path}/it's here does not hold the study on node gpu7" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("bash", "kernel", "line", "code"),
    [
        (["echo one"], "conda activate torch", "conda activate torch", 127),
        (["module() { true; false; }\nmodule load \\\n    cuda", "echo two"], ":", "module load \\", 1),
        (["source nowhere.sh"], None, "source nowhere.sh", 1),
        (["set -eo pipefail", "(exit 3) | cat"], None, "(exit 3) | cat", 3),
    ],
)
def test_a_line_that_fails_ends_the_job_and_is_named(
    tmp_path: Path, submitting: Path, bash: list[str], kernel: str | None, line: str, code: int
) -> None:
    config = make_config(tmp_path / "it's here", bash=bash, kernel=kernel)
    done = run_script(config, tmp_path, SLURM_ARRAY_JOB_ID="12", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == code
    assert "submitting: " not in done.stdout
    assert f"exit status {code} of the line: {line}" in done.stderr
    assert failures_of(config.paths) == {}  # no array of this number was submitted
    write_array(config.paths, JobArray("12", 4))
    assert failures_of(config.paths) == {"12_3": f"slurm: exit status {code} of the line: {line}"}


def test_what_fails_inside_a_file_or_a_function_of_others_is_theirs(tmp_path: Path, submitting: Path) -> None:
    (tmp_path / "site.sh").write_text("false\nconda() { false; return 0; }\n")
    lines = ["source site.sh", "false || true", "[ -f nowhere ] && source nowhere"]
    done = run(make_config(tmp_path / "run", bash=lines, kernel="conda activate torch"), tmp_path)
    assert done[-1].startswith("submitting: ")


def test_jobs_can_go_on_after_a_line_that_fails(tmp_path: Path, submitting: Path) -> None:
    config = make_config(tmp_path / "run", bash=["false"], kernel="conda activate torch", stop_on_error=False)
    assert run(config, tmp_path)[-1].startswith("submitting: ")


@pytest.mark.parametrize("line", ["set -e", "set -u", "set -euo pipefail"])
def test_strict_shells_are_no_obstacle(tmp_path: Path, submitting: Path, line: str) -> None:
    lines = run(make_config(tmp_path / "run", bash=[line], kernel=":"), tmp_path)
    assert lines[-1].startswith("submitting: ")


def test_early_signals_do_not_end_the_job(tmp_path: Path, submitting: Path) -> None:
    lines = run(make_config(tmp_path / "run", bash=["kill -USR1 $$", "kill -USR2 $$"]), tmp_path)
    assert lines[-1].startswith("submitting: ")


@pytest.mark.parametrize(
    "name",
    ["two words", "it's", 'a"b', "a;touch canary", "$(touch canary)", "`touch canary`", "a&touch canary&", "-n", "é*?"],
)
def test_no_path_or_name_runs_a_command(tmp_path: Path, submitting: Path, name: str) -> None:
    lines = run(make_config(tmp_path / name, name=name, batch={"job-name": name, "comment": name}), tmp_path)
    assert lines == [f"submitting: {tmp_path}/{name}"]
    assert not list(tmp_path.rglob("canary"))


def test_a_source_checkout_is_on_the_path_of_the_job(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    config.write_snapshot()
    script = render_script(plan_submission(config))
    line = next(line for line in script.splitlines() if line.startswith("exec "))
    importing = script.replace(line, f"exec {sys.executable} -P -c 'import aimlhpo; print(aimlhpo.__file__)'")
    done = subprocess.run(
        ["bash", "-l"], input=importing, text=True, capture_output=True, cwd=tmp_path, check=True,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    import aimlhpo

    assert done.stdout.strip() == aimlhpo.__file__
