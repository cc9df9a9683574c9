"""Every snippet in the README and in docs/ is run or checked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimlhpo.check.settings import load_config
from aimlhpo.config.yaml import load_yaml
from aimlhpo.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COVERED = {"configuration", "confirm", "index", "report", "search-space", "strategies", "warm-start"}
"""Pages whose commands other tests run, or other pages: only `make test-all` runs them once more."""
SECTIONS = {"log", "slurm", "optuna"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The path that the snippet's first line gives it: `# file: PATH`."""
        found = re.match(r"# file: (\S+)\n", self.text)
        return found.group(1) if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(page, text.count("\n", 0, match.start()) + 2, match.group(1), match.group(2))
        for match in FENCE.finditer(text)
    ]


SNIPPETS = [snippet for page in PAGES for snippet in read_snippets(page)]


def of(*languages: str) -> Any:
    return pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language in languages], ids=str)


def test_every_language_is_checked() -> None:
    assert {snippet.language for snippet in SNIPPETS} <= {"console", "python", "yaml", "bash", "text"}


@of("python")
def test_python(snippet: Snippet, tmp_path: Path) -> None:
    compile(snippet.text, str(snippet), "exec")
    if "class Objective" not in snippet.text or snippet.page.name == "frameworks.md":  # tests/frameworks runs those
        return
    (tmp_path / "objective.py").write_text(snippet.text)
    for helper in re.findall(r"^from (digits|training) import", snippet.text, re.MULTILINE):
        (tmp_path / f"{helper}.py").write_text("def train(*arguments): ...\n")
    code = f"from aimlhpo.objective.base import load_objective; load_objective({str(tmp_path / 'objective.py')!r})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@of("bash")
def test_bash(snippet: Snippet) -> None:
    subprocess.run(["bash", "-n"], input=snippet.text, text=True, check=True)


@of("yaml")
def test_yaml(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model YAML parses; a part of a hyperparameter YAML makes a legal one of the torch example's."""
    (tmp_path / "snippet.yml").write_text(snippet.text)
    content = load_yaml(tmp_path / "snippet.yml")
    assert isinstance(content, dict)
    if not set(content) <= SECTIONS:
        return
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PGPASSWORD", "of-nobody")
    base = load_yaml(ROOT / "examples/torch/hyperparameters.yml")
    base["optuna"]["objective"] = str(ROOT / "examples/torch/objective.py")
    optuna = {**base["optuna"], **content.get("optuna", {}), "save_path": str(tmp_path)}
    optuna["objective"] = base["optuna"]["objective"]
    if "study_name" in optuna:
        del optuna["name"]
    if "command" in optuna:
        del optuna["objective"]
    if len(optuna["metric"]) == 2 and "pruner" not in content["optuna"]:
        optuna.pop("pruner")
    (tmp_path / "hyperparameters.yml").write_text(yaml.safe_dump({**base, **content, "optuna": optuna}))
    load_config(tmp_path / "hyperparameters.yml", model_of(snippet.page, tmp_path))


def model_of(page: Path, folder: Path) -> Path:
    """The model YAML that stands on the same page, or else the torch example's."""
    for snippet in read_snippets(page):
        if snippet.language == "yaml" and not set(yaml.safe_load(snippet.text)) <= SECTIONS:
            (folder / "model.yml").write_text(snippet.text)
            return folder / "model.yml"
    return ROOT / "examples/torch/model.yml"


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.stem in COVERED else []) for page in PAGES],
)
def test_console(page: Path, tmp_path: Path) -> None:
    """All commands of a page, one after the other, in a copy of the sources; none may fail.

    Each block begins in the same directory. What pip installs is tried in test_wheel.py. A benchmark takes up to hours
    and has tests of its own: pages name its command in their text.
    """
    snippets = read_snippets(page)
    for snippet in snippets:
        if snippet.file:
            path = tmp_path / snippet.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text)
    blocks = [read_commands(snippet.text) for snippet in snippets if snippet.language == "console"]
    commands = [command for block in blocks for command in block]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands if command.startswith("make ")} <= set(targets)
    assert not [command for command in commands if "benchmarks" in command]
    if script := "\n".join(filter(None, map(block_script, blocks))):
        run_script(script, tmp_path)


def block_script(commands: list[str]) -> str:
    """The commands of one block as a script; empty where none is left to be run."""
    rest = [command for command in commands if not command.startswith(("make ", "source ", "pip "))]
    return "\n".join(["(", *rest, ")"]) if rest else ""


def read_commands(text: str) -> list[str]:
    """Lines that begin with a prompt; `# exit code N` behind one says how it has to end."""
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return [re.sub(r" +# exit code (\d+)$", r" || test $? -eq \1", command) for command in commands]


def run_script(script: str, folder: Path) -> None:
    for name in ("aimlhpo", "optimize.py", "examples"):
        if name == "examples":
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).symlink_to(ROOT / name)
    programs = folder / "bin"
    programs.mkdir()
    for name, words in (("python", ""), ("aimlhpo", "-m aimlhpo")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["OMP_NUM_THREADS"] = "1"  # studies of several workers would otherwise fight for the cores
    result = subprocess.run(["bash", "-eux", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_exit_codes_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_changelog_knows_this_version_or_the_next() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_table_of_keys_is_that_of_the_schema() -> None:
    result = subprocess.run([sys.executable, "scripts/write-docs", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
