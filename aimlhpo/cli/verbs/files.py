"""The verbs for a study's files: `aimlhpo init` writes some to begin with, `aimlhpo check` finds every mistake in them
before anything is started, `aimlhpo migrate` writes a file of NCAR's echo-opt anew in the keys of this command, and
`aimlhpo schema` prints the JSON schema that editors complete and check the hyperparameter file with.

The files of `init` lie in `aimlhpo/cli/templates`, in one folder a kind. A new kind is a folder there and an entry in
`KINDS`. Programs are texts there (`objective.py.txt`), because they are no part of the package.

Mistakes are reported before the packages are loaded that the deeper checks need.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aimlhpo.cli.arguments import UsageError
from aimlhpo.cli.loading import load_files
from aimlhpo.cli.messages import green, print_json, print_notes, print_rows
from aimlhpo.config.echo_opt import edit_text
from aimlhpo.config.load import edits_of
from aimlhpo.config.paths import replace_file
from aimlhpo.config.yaml import read_text
from aimlhpo.errors import ConfigError, ExitCode, Problem, did_you_mean


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


def run_init(arguments: Namespace) -> int:
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


def run_check(arguments: Namespace) -> int:
    dialect: list[str] = []
    try:
        edits = edits_of(arguments.hyperparameters)
        if edits:
            keys = ", ".join(":".join(edit.path) for edit in edits)
            way = f"aimlhpo migrate {arguments.hyperparameters} writes the file in the keys of this command"
            dialect.append(f"{keys}: understood as echo-opt's; {way}")
        config = load_files(arguments)
    except ConfigError as error:
        return _print_problems(error.problems, dialect, arguments)

    from aimlhpo.check.check import check, summarize
    from aimlhpo.check.samplers import warnings_for

    problems = check(config, allow_changes=arguments.allow_changes)
    if problems:
        return _print_problems(problems, dialect, arguments)
    notes, summary = [*dialect, *warnings_for(config)], summarize(config)
    if arguments.json:
        print_json(_as_json([], notes, dict(summary)))
        return ExitCode.DONE
    print(green("ok:"), "the study can start; nothing was started or changed\n")
    print_rows(summary)
    print_notes(notes)
    return ExitCode.DONE


def _print_problems(problems: list[Problem], notes: list[str], arguments: Namespace) -> int:
    """Print them as JSON where that is asked for; otherwise raise them, to be shown like any error."""
    if not arguments.json:
        print_notes(notes)
        raise ConfigError(problems)
    print_json(_as_json(problems, notes, None))
    return ExitCode.CONFIG


def _as_json(problems: list[Problem], notes: list[str], summary: dict[str, str] | None) -> dict[str, Any]:
    shown = [problem.as_dict() for problem in problems]
    return {"ok": not problems, "problems": shown, "notes": notes, "summary": summary}


def run_migrate(arguments: Namespace) -> int:
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


def run_schema(arguments: Namespace) -> int:
    from aimlhpo.check.json_schema import json_schema

    print_json(json_schema())
    return ExitCode.DONE
