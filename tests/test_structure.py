"""What is imported when: the command line stays fast, and modules import in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "aimlhpo"
HEAVY = {"torch", "tensorflow", "keras", "lightning", "pandas", "optuna", "sqlalchemy", "submitit", "numpy"}


def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """The names that a module imports while it is imported itself: not in functions, not for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (name for alias in node.names for name in (f"{node.module}.{alias.name}", node.module))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not for_types(node):
            yield from imported(node)


def for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not node.orelse


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports; a package's name inside itself says nothing."""
    known = modules()
    edges = {}
    for name, path in known.items():
        found = set(imported(ast.parse(path.read_text())))
        edges[name] = {other for other in found if other in known and not name.startswith(f"{other}.")} - {name}
    return edges


def test_imports_make_no_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_the_sorter_finds_a_circle_where_there_is_one() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({**graph(), "aimlhpo.errors": {"aimlhpo.cli.main"}}).prepare()


def test_only_the_command_line_imports_the_command_line() -> None:
    outside = {
        name: edges for name, edges in graph().items() if not name.startswith(("aimlhpo.cli", "aimlhpo.__main__"))
    }
    assert {name for name, edges in outside.items() if any(edge.startswith("aimlhpo.cli") for edge in edges)} == set()


def test_only_user_code_imports_callbacks() -> None:
    others = {name: edges for name, edges in graph().items() if not name.startswith("aimlhpo.callbacks")}
    assert {
        name for name, edges in others.items() if any(edge.startswith("aimlhpo.callbacks") for edge in edges)
    } == set()


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after running the code."""
    script = f"import sys\n{code}\nprint(' '.join(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & {name.split(".")[0] for name in result.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import aimlhpo",
        "from aimlhpo.cli.main import main; assert main(['--help']) == 0",
        "from aimlhpo.cli.main import main; assert main(['optimize', '--help']) == 0",
        "from aimlhpo.cli.main import main; assert main(['no-such-command']) == 2",
        "import aimlhpo.config",
        "from aimlhpo import BaseObjective",
    ],
)
def test_no_framework_is_loaded_by(code: str) -> None:
    assert loaded_by(code) == set()


def test_no_framework_is_loaded_by_any_module_of_the_command_line() -> None:
    names = [name for name in modules() if ".cli" in name or ".config" in name]
    assert loaded_by(f"import {', '.join(names)}") == set()


def test_every_module_says_what_it_is_for() -> None:
    texts = {name: path.read_text() for name, path in modules().items()}
    assert {name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))} == set()


def test_modules_are_small() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: number for name, number in lines.items() if number > 400} == {}
