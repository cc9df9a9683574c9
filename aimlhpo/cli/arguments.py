"""Argument parsers in the house's style, and the arguments that several verbs share.
From what a user names on the command line, a directory or a YAML file, to the study in it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from aimlhpo.errors import AimlhpoError, ConfigError, ExitCode, Problem
from aimlhpo.paths import StudyPaths

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

EXIT_CODES = """\
exit codes:
  0  done
  1  a bug in aimlhpo
  2  the configuration or the command line is wrong
  3  nothing to do: the budget was reached before
  4  the study had to be given up, its storage cannot be reached, or no trial is feasible
  5  SLURM did not take the jobs
  130  interrupted
"""
_WORKERS = re.compile(r"[+-]?\d+")


class UsageError(AimlhpoError):
    """The command line cannot be understood."""

    exit_code = ExitCode.CONFIG


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process; options and overrides may stand in any order."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}\nMore: {self.prog} --help")


def make_parser(verb: str, summary: str, examples: str) -> Parser:
    """The parser of one verb; `examples` are whole command lines, one a line."""
    shown = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return Parser(
        prog=f"aimlhpo {verb}",
        description=summary,
        epilog=f"examples:\n{shown}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Both YAML files, overrides, and the short flags for the keys that change most."""
    parser.add_argument("hyperparameters", type=Path, metavar="HYPERPARAMETERS.yml", help="what to search, and how")
    parser.add_argument("model", type=Path, metavar="MODEL.yml", help="the configuration that is tuned")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section:key=value",
        help="set any key of either file, as optuna:sampler:type=TPESampler or optimizer:learning_rate=0.1",
    )
    keys = parser.add_argument_group("keys of the optuna section")
    for short, long, key, value, text in _FLAGS:
        keys.add_argument(short, long, dest=key, metavar=value, help=text)


_FLAGS = (
    ("-n", "--name", "name", "NAME", "name of the study"),
    ("-r", "--reload", "reload", "1|0", "1: go on with the study, 0: it must be new"),
    ("-o", "--objective", "objective", "FILE", "the Python file that holds class Objective"),
    ("-d", "--direction", "direction", "WAY", "minimize or maximize"),
    ("-m", "--metric", "metric", "NAME", "the metric that train() returns"),
    ("-t", "--n-trials", "n_trials", "N", "number of trials to finish, complete and pruned"),
    ("-g", "--gpu", "gpu", "1|0", "1: each worker has a GPU of its own, 0: no GPU is used"),
    ("-s", "--save-path", "save_path", "DIR", "directory for results, logs and state"),
)


def config_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """The flags that were given, as text: the configuration checks and converts them."""
    values = {key: getattr(arguments, key) for _, _, key, _, _ in _FLAGS}
    return {key: value for key, value in values.items() if value is not None}


def add_study_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "study",
        type=Path,
        metavar="SAVE_PATH|HYPERPARAMETERS.yml",
        help="the study's directory, or the file it was started with",
    )


def fill_local(argv: Sequence[str]) -> list[str]:
    """Let `--local` stand in front of a file: only a number after it is its value."""
    filled = list(argv)
    for position, word in enumerate(argv):
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if word == "--local" and not _WORKERS.fullmatch(following):
            filled[position] = "--local=auto"
    return filled


_LEGAL = "a directory that `aimlhpo optimize` has written to (save_path), or the hyperparameter file"


def load_target(named: Path) -> Config:
    """The configuration that the study was last started with. Raises ConfigError where there is no study."""
    from aimlhpo.config.load import load_paths, load_snapshot

    if not named.exists():
        raise ConfigError(Problem(str(named), "there is no such file or directory", _LEGAL))
    paths = StudyPaths(named.absolute(), "") if named.is_dir() else load_paths(named)
    if not paths.hyperparameters.exists():
        found = f"{paths.save_path} holds no study"
        raise ConfigError(Problem(str(named), found, _LEGAL))
    return load_snapshot(paths)
