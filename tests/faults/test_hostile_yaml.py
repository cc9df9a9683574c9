"""Files that are no configuration, or want to be more than one, are refused quickly, and nothing is run or made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aimlhpo.errors import ExitCode
from tests.project import Project

pytestmark = pytest.mark.faults

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [{', '.join(['*a'] * 400)}]}}\n" for n in range(400))
TEXTS: dict[str, bytes] = {
    "billion laughs": LAUGHS.encode(),
    "merged bombs": MERGES.encode(),
    "a loop": b"optuna: &o\n  parameters: *o\n",
    "10 MB of text": b"model: '" + b"x" * 10_000_000 + b"'\n",
    "10 MB of entries": b"model:\n" + b"  - 1\n" * 1_700_000,
    "very deep": b"[" * 100_000,
    "deep mappings": b"".join(b" " * n + b"a:\n" for n in range(3_000)),
    "binary": bytes(range(256)) * 400,
    "an ELF file": Path("/bin/true").read_bytes(),
    "zeros": b"\0" * 1_000_000,
    "UTF-16": "optuna: {name: s}\n".encode("utf-16"),
    "not UTF-8": b"name: \xff\xfe\xfa\n",
    "a Python object": b"model: !!python/object/apply:os.system ['touch canary']\n",
    "a Python module": b"model: !!python/module:antigravity {}\n",
    "a huge number": b"optuna: {n_trials: " + b"9" * 100_000 + b"}\n",
    "a huge exponent": b"optuna: {n_trials: 1e999999999}\n",
    "only a list": b"- 1\n- 2\n",
    "empty": b"",
    "two documents": b"optuna: {}\n---\noptuna: {}\n",
    "tabs": b"optuna:\n\tname: s\n",
}
KINDS: dict[str, Callable[[Path], None]] = {
    "a directory": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "no file": lambda path: None,
}


def refused(project: Project, verb: str) -> str:
    """What the command says; it must say it soon, in few words, and do nothing."""
    before = sorted(project.folder.rglob("*"))
    command = project.command(verb=verb)
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=60, errors="replace")
    words = done.stdout + done.stderr
    assert done.returncode == ExitCode.CONFIG, words[-2000:]
    assert "Traceback" not in words
    assert len(words) < 4000
    assert sorted(project.folder.rglob("*")) == before
    return words


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_hyperparameters(tmp_path: Path, text: bytes) -> None:
    project = Project(tmp_path)
    project.hyperparameters.write_bytes(text)
    words = refused(project, "optimize")
    assert "hyperparameters.yml" in words or "optuna: " in words


@pytest.mark.parametrize("name", ["billion laughs", "10 MB of entries", "very deep", "binary", "a Python object"])
def test_model(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path)
    project.model.write_bytes(TEXTS[name])
    assert "model.yml" in refused(project, "check")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    project = Project(tmp_path)
    project.hyperparameters.unlink()
    make(project.hyperparameters)
    assert "hyperparameters.yml" in refused(project, "optimize")
