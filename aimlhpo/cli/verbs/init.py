"""`aimlhpo init`: a set of files to begin one's own study with, which runs as it is.

The files lie in `aimlhpo/cli/templates`, in one folder a kind. A new kind is a folder there and an entry in `KINDS`.
Programs are texts there (`objective.py.txt`), because they are no part of the package.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from aimlhpo.cli.arguments import UsageError
from aimlhpo.cli.messages import print_rows
from aimlhpo.errors import ExitCode, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A kind of training code.

    Attributes:
        summary: what the files hold.
        module: what has to be importable for them to run; empty for nothing.
        install: what pip is told to install it.
    """

    summary: str
    module: str = ""
    install: str = ""


KINDS = {
    "torch": Kind("a training loop in PyTorch", "torch", "aimlhpo[torch]"),
    "keras": Kind("model.fit of Keras 3", "keras", "aimlhpo[keras]"),
    "lightning": Kind("a LightningModule and its Trainer", "lightning", "aimlhpo[lightning]"),
    "sklearn": Kind("a model of scikit-learn", "sklearn", "scikit-learn"),
    "command": Kind("any program, in any language", ""),
}
"""The kinds by the name that the user gives."""


def run(arguments: Namespace) -> int:
    if arguments.kind is None:
        print("aimlhpo init KIND [DIR] writes files to begin with. The kinds are:\n")
        print_rows([(f"  {name}", kind.summary) for name, kind in KINDS.items()])
        return ExitCode.CONFIG
    if arguments.kind not in KINDS:
        guess = did_you_mean(arguments.kind, KINDS)
        hint = f"\n    did you mean: aimlhpo init {guess}" if guess else ""
        raise UsageError(f"init: there are no files for {arguments.kind!r}; legal: {', '.join(KINDS)}{hint}")
    kind, folder = KINDS[arguments.kind], arguments.directory
    written = write_files(arguments.kind, folder)
    print(f"wrote {', '.join(str(path) for path in written)}\n\nnext:")
    if kind.module and find_spec(kind.module) is None:
        print(f"  pip install {shlex.quote(kind.install)}")
    if folder != Path():
        print(f"  cd {shlex.quote(str(folder))}")
    print("  aimlhpo check hyperparameters.yml model.yml")
    print("  aimlhpo optimize hyperparameters.yml model.yml --local 2")
    return ExitCode.DONE


def write_files(kind: str, folder: Path) -> list[Path]:
    """Write the files of a kind into the folder, which is made where it is missing. Returns their paths.

    Raises UsageError, and leaves everything as it was, where one of the files is there already or cannot be written.
    """
    templates = sorted((files("aimlhpo") / "cli" / "templates" / kind).iterdir(), key=lambda file: file.name)
    targets = {folder / file.name.removesuffix(".txt"): file.read_text(encoding="utf-8") for file in templates}
    there = [str(path) for path in targets if path.exists() or path.is_symlink()]
    if there:
        raise UsageError(
            f"init: {', '.join(there)} would be overwritten; nothing was written\n"
            f"    give a directory of its own: aimlhpo init {kind} DIR"
        )
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in targets.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise UsageError(f"init: {error.filename or folder}: {error.strerror}; nothing was written") from error
    return written
