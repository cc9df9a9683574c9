"""`aimlhpo migrate`: write a hyperparameter file of NCAR's echo-opt anew, in the keys of this command."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from aimlhpo.config.edits import edit_text
from aimlhpo.config.load import edits_of
from aimlhpo.config.yaml import read_text
from aimlhpo.errors import ConfigError, ExitCode, Problem
from aimlhpo.paths import replace_file


def run(arguments: Namespace) -> int:
    source: Path = arguments.file
    target: Path = arguments.output or source.with_name(f"{source.stem}.new{source.suffix}")
    edits = edits_of(source)
    if not edits:
        print(f"nothing to do: {source} has no key of echo-opt's own")
        return ExitCode.NOTHING_TO_DO
    if target.exists():
        raise ConfigError(Problem(str(target), "is there already", "-o FILE: another name"))
    replace_file(target, edit_text(read_text(source), str(source), edits))
    print(f"{target}: {len(edits)} change{'s' if len(edits) > 1 else ''}; all else is as it was in {source}")
    for edit in edits:
        print(f"  {edit}")
    return ExitCode.DONE


def note_of(hyperparameters: Path) -> list[str]:
    """What to say of a file with keys of echo-opt's own."""
    keys = ", ".join(":".join(edit.path) for edit in edits_of(hyperparameters))
    way = f"aimlhpo migrate {hyperparameters} writes the file in the keys of this command"
    return [f"{keys}: understood as echo-opt's; {way}"] if keys else []
