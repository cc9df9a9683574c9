"""Imports a user's Python file by its path."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType


class SourceError(Exception):
    """A file that cannot be imported; `detail` is its own traceback, where it has one."""

    def __init__(self, message: str, detail: str = "") -> None:
        self.message, self.detail = message, detail
        super().__init__(message)


def import_file(file: Path, purpose: str) -> ModuleType:
    """Run the file as a module under a name that no other file has; `purpose` is a part of that name.

    Raises SourceError.
    """
    name = module_name(file, purpose)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SourceError(f"{file}: not a Python file; its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    # The folder stays on the path: helper modules beside the file are imported late, too.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SourceError(f"{file}: importing it failed", trim(error, file)) from error
    return module


def module_name(file: Path, purpose: str) -> str:
    """The name that the file is imported under."""
    return f"aimlhpo_{purpose}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"


def trim(error: BaseException, file: Path) -> str:
    """The traceback from the file's first line on, without the machinery that imported it."""
    tb: TracebackType | None = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != str(file):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip()
