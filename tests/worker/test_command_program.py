"""One run of a program: what it leaves behind, how it is stopped, what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.waiting import wait_until
from tests.worker.test_command import alive

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, script: str, kill_after: float = 0.5) -> list[str]:
    """A process that stands for a worker, and runs a script as a program."""
    return [sys.executable, "-m", "tests.worker.run_program", str(folder), dedent(script), str(kill_after)]


def run(folder: Path, script: str, kill_after: float = 0.5) -> subprocess.CompletedProcess[str]:
    words = command(folder, script, kill_after)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, start_new_session=True)


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "pids").read_text().split()]


@pytest.mark.parametrize("session", ["False", "True"])
def test_what_it_started_ends_with_it(tmp_path: Path, session: str) -> None:
    script = f"""
        import subprocess
        child = subprocess.Popen(["sleep", "600"], start_new_session={session})
        open("pids", "w").write(str(child.pid))
    """
    done = run(tmp_path, script)
    assert done.stdout == "code 0\n", done.stderr
    assert not any(map(alive, pids(tmp_path)))


def test_stubborn_program_is_killed_with_its_children(tmp_path: Path) -> None:
    script = """
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open("pids", "w").write(f"{os.getpid()} {child.pid}")
        print('{"stop": 1}', flush=True)
        time.sleep(600)
    """
    done = run(tmp_path, script)
    assert done.stdout.endswith("code -9\n"), done.stderr
    assert not any(map(alive, pids(tmp_path)))


@pytest.mark.parametrize("stop", [1, 2])
def test_what_a_shell_waits_for_has_time_to_end_when_the_shell_has_none(tmp_path: Path, stop: int) -> None:
    (tmp_path / "child.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *given: (time.sleep(0.5), open('saved', 'w').close(), sys.exit(0)))\n"
        f"print('{{\"stop\": {stop}}}', flush=True)\n"
        "time.sleep(600)\n"
    )
    script = f"import os; os.execlp('sh', 'sh', '-c', '{sys.executable} child.py; true')"
    done = run(tmp_path, script, kill_after=60)
    assert done.stdout.endswith("code -15\n"), done.stderr
    assert (tmp_path / "saved").exists()


def test_more_output_than_a_pipe_holds(tmp_path: Path) -> None:
    script = """
        import sys
        for line in range(20_000):
            print("out", line)
            print("err", line, file=sys.stderr)
    """
    done = run(tmp_path, script)
    assert done.stdout.splitlines()[-2:] == ["out 19999", "code 0"]
    assert done.stderr.splitlines()[-1] == "err 19999"


def test_output_closed_long_before_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, "import os, time; os.close(1); os.close(2); time.sleep(0.6); os._exit(5)")
    assert done.stdout == "code 5\n"


def test_mark_of_report_is_not_in_the_log(tmp_path: Path) -> None:
    done = run(tmp_path, """print("unfinished", end="", flush=True); print('\\x1e{"a": 1}')""")
    assert done.stdout == 'unfinished{"a": 1}\ncode 0\n'


def test_everything_ends_with_the_worker(tmp_path: Path) -> None:
    script = """
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
        os.rename("pids.new", "pids")
        time.sleep(600)
    """
    worker = subprocess.Popen(command(tmp_path, script), cwd=ROOT, start_new_session=True)
    try:
        wait_until(lambda: (tmp_path / "pids").exists())
    finally:
        worker.kill()
        worker.wait()
    wait_until(lambda: not any(map(alive, pids(tmp_path))))


def test_program_ends_for_a_worker_that_was_started_where_sigchld_is_ignored(tmp_path: Path) -> None:
    words = ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh", *command(tmp_path, "print('done')", 0.5)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, start_new_session=True)
    assert done.returncode == 0, done.stderr
    assert "code 0" in done.stdout
