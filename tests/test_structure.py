"""How the package is built: rooms that import in one direction only, and commands that load no more than they need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from aimlhpo.cli.arguments import VERBS
from aimlhpo.launch.base import LAUNCHERS, Launcher, make_launcher
from tests.project import Project

PACKAGE = Path(__file__).resolve().parents[1] / "aimlhpo"
ROOMS = (
    "errors", "processes", "objective", "base_objective", "callbacks", "space", "config", "storage", "search",
    "ledger", "results", "tracking", "worker", "agent", "launch", "check", "cli", "__main__",
)  # fmt: skip
"""Rooms and modules at the top; each imports only what stands before it."""
MOST_FILES, MOST_AT_TOP, MOST_LINES = 14, 4, 600
DRAWING = {"plotly", "matplotlib", "sklearn", "jinja2"}
HEAVY = {"torch", "tensorflow", "keras", "lightning", "pandas", "optuna", "sqlalchemy", "submitit", "numpy", *DRAWING}


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


@cache
def imports(name: str) -> frozenset[str]:
    """The package's modules that one of them imports: at its top, inside functions, and for types alone."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & modules().keys() or {node.module}
    return frozenset(other for other in found if other in modules() and other != name)


def room(name: str) -> str:
    """The room or the module at the top that a module belongs to; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


def circle_in(graph: dict[str, set[str]]) -> str | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return None


def test_imports_make_no_circle_of_modules() -> None:
    graph = {name: set(imports(name)) for name in modules()}
    assert circle_in(graph) is None
    assert circle_in({**graph, "aimlhpo.errors": {"aimlhpo.cli.main"}}) is not None


def test_rooms_import_in_one_direction_only() -> None:
    assert {room(name) for name in modules()} == {"", *ROOMS}
    upwards = {
        f"{name} -> {other}"
        for name in modules()
        for other in imports(name)
        if room(name) and room(other) and ROOMS.index(room(other)) > ROOMS.index(room(name))
    }
    assert upwards == set()


@pytest.mark.parametrize("path", ["callbacks", "base_objective"])
def test_paths_of_user_code_are_imported_by_user_code_only(path: str) -> None:
    importing = {name for name in modules() if any(room(other) == path for other in imports(name))}
    assert {name for name in importing if room(name) != path} == set()


def test_nothing_outside_launch_looks_behind_the_interface_of_launchers() -> None:
    outside = {name: imports(name) for name in modules() if room(name) != "launch"}
    behind = {f"{name} -> {other}" for name, found in outside.items() for other in found if room(other) == "launch"}
    assert {edge for edge in behind if not edge.endswith(" -> aimlhpo.launch.base")} == set()


def test_folders_are_easy_to_overlook() -> None:
    files = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in modules().values())
    assert {folder: number for folder, number in files.items() if number > MOST_FILES} == {}
    assert files["."] - 1 <= MOST_AT_TOP  # all but __init__


def test_no_module_is_too_long_to_read_at_one_go() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


def test_every_module_and_every_room_says_what_it_is_for() -> None:
    assert {name for name in modules() if not ast.get_docstring(tree(name))} == set()


def test_rooms_hold_a_docstring_alone_and_export_nothing_again() -> None:
    rooms = {name for name, path in modules().items() if path.name == "__init__.py" and room(name)}
    statements = {name: [node for node in tree(name).body if not isinstance(node, ast.Expr)] for name in rooms}
    exporting = {name for name, nodes in statements.items() if nodes}
    assert exporting == {"aimlhpo.callbacks"}  # whose names user code imports


def test_a_class_name_stands_for_one_class() -> None:
    names = Counter(node.name for name in modules() for node in ast.walk(tree(name)) if isinstance(node, ast.ClassDef))
    assert {name for name, number in names.items() if number > 1} == set()


def test_private_names_of_optuna_are_used_in_two_modules_at_most() -> None:
    def is_private(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        else:
            return False
        return names[0] == "optuna" and any(name.startswith("_") for name in names)

    assert len([name for name in modules() if any(map(is_private, ast.walk(tree(name))))]) <= 2


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_fulfils_the_interface(name: str) -> None:
    assert isinstance(make_launcher(name), Launcher)


def heavy_packages_after(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after running the code."""
    script = f"import sys\n{code}\nprint(' '.join(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & {name.split(".")[0] for name in result.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code", ["import aimlhpo", "from aimlhpo import BaseObjective, add_to_argparse", "import aimlhpo.config.load"]
)
def test_no_heavy_package_is_loaded_by(code: str) -> None:
    assert heavy_packages_after(code) == set()


def test_what_draws_reports_is_loaded_by_reports_alone() -> None:
    """The others would wait for it at their start, and an agent would carry it in its memory."""
    verbs = [name for name in modules() if name.startswith("aimlhpo.cli.verbs.")]
    assert heavy_packages_after(f"import {', '.join(verbs)}") & DRAWING == set()


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        *(([verb, "--help"], 0) for verb in VERBS),
        (["no-such-command"], 2),
        (["status", "--no-such-option"], 2),
        (["submit", "nowhere", "--jobs", "none"], 2),
        (["status", "nowhere"], 2),
    ],
    ids=str,
)
def test_no_heavy_package_is_loaded_by_help_and_by_mistakes_on_the_command_line(argv: list[str], code: int) -> None:
    assert heavy_packages_after(f"from aimlhpo.cli.main import main; assert main({argv}) == {code}") == set()


@pytest.mark.parametrize("verb", ["optimize", "check"])
@pytest.mark.parametrize("override", ["optuna:n_trials=none", "optuna:parameters=gone", "model:not:there=1"])
def test_no_heavy_package_is_loaded_by_mistakes_in_the_files(verb: str, override: str, tmp_path: Path) -> None:
    project = Project(tmp_path, sampler=None, pruner=None)
    argv = [verb, str(project.hyperparameters), str(project.model), override]
    assert heavy_packages_after(f"from aimlhpo.cli.main import main; assert main({argv}) == 2") == set()
