"""`aimlhpo check`: every mistake at once, before anything is started.

Mistakes in the files are reported before the packages are loaded that the deeper checks need.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from aimlhpo.cli.arguments import load_files
from aimlhpo.cli.messages import green, print_json, print_notes, print_rows
from aimlhpo.cli.verbs.migrate import note_of
from aimlhpo.errors import ConfigError, ExitCode, Problem


def run(arguments: Namespace) -> int:
    dialect: list[str] = []
    try:
        dialect += note_of(arguments.hyperparameters)
        config = load_files(arguments)
    except ConfigError as error:
        return _print_problems(error.problems, dialect, arguments)

    from aimlhpo.check.check import check
    from aimlhpo.check.samplers import warnings_for
    from aimlhpo.check.summary import summarize

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
