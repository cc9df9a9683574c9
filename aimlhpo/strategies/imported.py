"""Strategies of the user's own: a class of an installed package, or of a Python file."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

from aimlhpo.source_file import SourceError, import_file, module_name
from aimlhpo.strategies.errors import UnknownClassError, in_one_line
from aimlhpo.suggestions import did_you_mean, listing, show

_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def from_file(text: str, base: type) -> object:
    """What `FILE.py:CLASS` names. Raises UnknownClassError."""
    match = _FILE.fullmatch(text)
    if match is None:
        near = f"{text}:CLASS" if text.endswith(".py") else _without_colon(text)
        raise UnknownClassError(f"{show(text)} names no class of a file", "FILE.py:CLASS", near)
    file = Path(match["file"]).resolve()
    if not file.is_file():
        raise UnknownClassError(f"no such file: {file}", "the path of the Python file that holds the class")
    return attribute(_module_of(file), match["name"], base)


def _without_colon(text: str) -> str | None:
    """What was meant, where the colon stands in the name of a package's class."""
    dotted = text.replace(":", ".")
    return dotted if _DOTTED.fullmatch(dotted) else None


def _module_of(file: Path) -> ModuleType:
    """The file's module, run once in a process."""
    known = sys.modules.get(module_name(file, "strategy"))
    if known is not None:
        return known
    try:
        return import_file(file, "strategy")
    except SourceError as error:
        lines = error.detail.splitlines()
        last = f": {lines[-1]}{_place(lines, file)}" if lines else ""
        raise UnknownClassError(f"{error.message}{last}", "a file that Python can import") from error


def _place(lines: list[str], file: Path) -> str:
    """The deepest line of the file that a traceback names."""
    places = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', "\n".join(lines))
    return f" (line {places[-1]})" if places else ""


def from_package(text: str, base: type) -> object:
    """What `PACKAGE.MODULE.CLASS` names. Raises UnknownClassError."""
    if not _DOTTED.fullmatch(text):
        raise UnknownClassError(f"{show(text)} is not an import path", "PACKAGE.MODULE.CLASS")
    path, _, name = text.rpartition(".")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        legal = "a module that is installed or on PYTHONPATH; or FILE.py:CLASS"
        raise UnknownClassError(f"importing {path} failed: {in_one_line(error)}", legal) from error
    return attribute(module, name, base)


def attribute(module: ModuleType, name: str, base: type) -> object:
    """What the module holds under the name. Raises UnknownClassError, with the strategies that it does hold."""
    if hasattr(module, name):
        return getattr(module, name)
    held = [key for key, value in vars(module).items() if is_own(value, base, module)]
    where = getattr(module, "__file__", None) or module.__name__
    legal = listing(held) or f"a module with a subclass of {base.__name__}"
    near = did_you_mean(name, held) or did_you_mean(name + base.__name__.removeprefix("Base"), held)
    raise UnknownClassError(f"{where} has no {name}", legal, near)


def is_own(value: object, base: type, module: ModuleType) -> bool:
    """Whether a value is a strategy that the module, or one of its own, defines."""
    if not isinstance(value, type) or not issubclass(value, base) or value is base:
        return False
    return value.__module__.startswith(module.__name__)
