"""`aimlhpo check`: every mistake at once, before anything is started; and two verbs for the hyperparameter file alone.

Mistakes in the files are reported before the packages are loaded that the deeper checks need. Where a file has keys of
NCAR's echo-opt, the check points to `aimlhpo migrate`, which writes it anew in the keys of this command.
`aimlhpo schema` prints the JSON schema that editors complete and check the file with.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from aimlhpo.cli.loading import load_files
from aimlhpo.cli.messages import green, print_json, print_notes, print_rows
from aimlhpo.config.edits import edit_text
from aimlhpo.config.load import edits_of
from aimlhpo.config.paths import replace_file
from aimlhpo.config.yaml import read_text
from aimlhpo.errors import ConfigError, ExitCode, Problem


def run(arguments: Namespace) -> int:
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
        print_json(_report([], notes, dict(summary)))
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
    print_json(_report(problems, notes, None))
    return ExitCode.CONFIG


def _report(problems: list[Problem], notes: list[str], summary: dict[str, str] | None) -> dict[str, Any]:
    shown = [problem.as_dict() for problem in problems]
    return {"ok": not problems, "problems": shown, "notes": notes, "summary": summary}


def migrate(arguments: Namespace) -> int:
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


def schema(arguments: Namespace) -> int:
    from aimlhpo.check.json_schema import json_schema

    print_json(json_schema())
    return ExitCode.DONE
