"""The command line: every verb with its arguments, its help and its examples.

Nothing here imports more than the standard library and the configuration, so that `--help` and mistakes on the command
line and in the YAML files appear at once. A new verb is a function `run_VERB` in a module of `verbs`, and an entry in
`VERBS`.
"""

from __future__ import annotations

import argparse
import math
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from aimlhpo.cli.loading import FLAGS, load_files_and_objective, load_study
from aimlhpo.errors import AimlhpoError, ExitCode, did_you_mean, listing

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
REPORT_FORMATS = ("html", "png", "pdf")


class UsageError(AimlhpoError):
    """The command line cannot be understood."""

    exit_code = ExitCode.CONFIG


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}\nMore: {self.prog} --help")


Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What `add_argument` is called with."""


def argument(*names: str, **options: Any) -> Argument:
    return names, options


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        module: the module of `verbs` whose function run_VERB runs it and returns the exit code. The function takes the
            configuration, where there is `load`, and the arguments.
        summary: what it does, in the list of verbs; empty for a verb that is not for users.
        description: what it does, in its own help.
        examples: whole command lines, one a line.
        arguments: what follows the verb; for verbs that read both files, the short flags are added.
        load: reads the configuration that the arguments name, before the verb's module is loaded; None for verbs
            that need none. What it starts meanwhile ends with the command. Raises ConfigError.
    """

    module: str
    summary: str
    description: str
    examples: str
    load: Callable[[Namespace, ExitStack], Config] | None
    arguments: tuple[Argument, ...] = ()


def find_verb(name: str) -> Verb:
    """The verb of that name. Raises UsageError."""
    if name not in VERBS:
        public = [verb for verb, entry in VERBS.items() if entry.summary]
        guess = did_you_mean(name, public)
        hint = f"\n    did you mean: aimlhpo {guess}" if guess else ""
        raise UsageError(f"aimlhpo has no command {name!r}; it has: {', '.join(public)}{hint}")
    return VERBS[name]


def parse_arguments(name: str, argv: Sequence[str]) -> Namespace:
    """The arguments of the verb `name`. Raises UsageError, or SystemExit after `--help`."""
    verb = find_verb(name)
    examples = "\n".join(f"  {line}" for line in verb.examples.strip().splitlines())
    parser = Parser(
        prog=f"aimlhpo {name}",
        description=verb.description,
        epilog=f"examples:\n{examples}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if _FILES[0] in verb.arguments:
        keys = parser.add_argument_group("keys of the optuna section")
        for short, long, key, value, text in FLAGS:
            keys.add_argument(short, long, dest=key, metavar=value, help=text)
    for names, options in verb.arguments:
        parser.add_argument(*names, **options)
    filled = list(argv)
    for position, word in enumerate(argv):
        # `--local` may stand in front of a file: only a number after it is its value.
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if name in ("optimize", "confirm") and word == "--local" and not re.fullmatch(r"[+-]?\d+", following):
            filled[position] = "--local=auto"
    return parser.parse_intermixed_args(filled)


def _workers(text: str) -> int | str:
    """The value of --local: a number of workers, or "auto"."""
    return text if text == "auto" else _number("--local", "workers", text, or_else=", or nothing")


def _number(option: str, of: str, text: str, or_else: str = "") -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{option}: {text!r} is not a number of {of}; legal: a whole number from 1{or_else}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise UsageError(f"--port: {text!r} is not a TCP port; legal: a whole number from 1 to 65535")
    return int(text)


def _formats(text: str) -> tuple[str, ...]:
    """The value of --format."""
    words = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in words:
        if word not in REPORT_FORMATS:
            raise UsageError(f"--format: {word!r} is no format of a report; legal: {listing(REPORT_FORMATS)}")
    return words


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--every: {text!r} is not a length of time; legal: seconds, more than 0")
    return value


def _count(option: str, of: str, default: int, text: str) -> Argument:
    """An option that takes a number of something."""
    kind = partial(_number, option, of)
    return argument(option, type=kind, metavar="N", default=default, help=f"{text} (default: {default})")


def _local(what: str) -> Argument:
    """--local, which does something on this machine instead of in jobs."""
    text = f"{what} on this machine, on N workers (default: one for each GPU with gpu: true, else one)"
    return argument("--local", nargs="?", const="auto", type=_workers, metavar="N", help=text)


_FILES = (
    argument("hyperparameters", type=Path, metavar="HYPERPARAMETERS.yml", help="what to search, and how"),
    argument("model", type=Path, metavar="MODEL.yml", help="the configuration that is tuned"),
    argument(
        "overrides",
        nargs="*",
        metavar="section:key=value",
        help="set any key of either file, as optuna:sampler:type=TPESampler or optimizer:learning_rate=0.1",
    ),
)
_SECTION = argument("--section", metavar="NAME", help="of several slurm sections, the one with this name alone")
_STUDY = argument(
    "study",
    type=Path,
    metavar="SAVE_PATH|HYPERPARAMETERS.yml",
    help="the study's directory, or the file it was started with",
)
VERBS = {
    "init": Verb(
        "files",
        "write files to begin one's own study with",
        """\
Write hyperparameters.yml, model.yml and objective.py (or a program), which run as they are, to put your own code into.

The kinds are torch, keras, lightning, sklearn and command. No file is ever overwritten.""",
        """\
aimlhpo init torch
aimlhpo init command study
""",
        None,
        (
            argument("kind", nargs="?", metavar="KIND", help="which files; without it, the kinds are listed"),
            argument("directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="where (default: here)"),
        ),
    ),
    "optimize": Verb(
        "optimize",
        "search for the best configuration, here or on the SLURM cluster",
        """\
Search for the best configuration.

Without a `slurm` section, or with --local, the study runs here; otherwise its jobs are submitted and
the command returns.""",
        """\
aimlhpo optimize hyperparameters.yml model.yml
aimlhpo optimize hyperparameters.yml model.yml --local 2
aimlhpo optimize hyperparameters.yml model.yml -r 1 -t 200
aimlhpo optimize hyperparameters.yml model.yml optuna:sampler:type=TPESampler model:dropout=0.1
aimlhpo optimize hyperparameters.yml model.yml 'optimizer.learning_rate=tag(log, interval(1e-5, 0.1))'
aimlhpo optimize hyperparameters.yml model.yml --show sampler
""",
        load_files_and_objective,
        (
            *_FILES,
            argument("-c", "--create-only", action="store_true", help="create the study and run nothing"),
            _local("run"),
            argument(
                "--show",
                choices=("sampler", "pruner"),
                help="print every option of it with its default, and run nothing",
            ),
            argument("--dry-run", action="store_true", help="check everything, show what would run"),
            argument("--wait", action="store_true", help="follow submitted jobs to the end of the study"),
            argument(
                "--allow-changes",
                action="store_true",
                help="go on with a study whose ranges or model YAML have changed",
            ),
        ),
    ),
    "check": Verb(
        "files",
        "find every mistake before a GPU is spent",
        "Find every mistake without starting or changing anything.",
        """\
aimlhpo check hyperparameters.yml model.yml
aimlhpo check hyperparameters.yml model.yml --json
""",
        None,  # it reads the files itself, because it shows their problems in a way of its own
        (
            *_FILES,
            argument("--json", action="store_true", help="print the problems as JSON"),
            argument("--allow-changes", action="store_true", help="let a reloaded study's ranges change"),
        ),
    ),
    "status": Verb(
        "status",
        "how a study stands",
        "How a study stands: trials, best value, agents, jobs, failures.",
        """\
aimlhpo status runs/digits
aimlhpo status hyperparameters.yml --json
aimlhpo status runs/digits --failed
""",
        load_study,
        (
            _STUDY,
            argument("--json", action="store_true", help="everything as JSON, for scripts"),
            argument("--failed", action="store_true", help="list all failed and interrupted trials with cause and log"),
        ),
    ),
    "watch": Verb(
        "status",
        "the same, live, until the study ends",
        """\
Follow a study until its budget is reached or nobody works on it any more.

Ctrl-C ends the watching; the jobs go on.""",
        """\
aimlhpo watch runs/digits
aimlhpo watch hyperparameters.yml --every 30
""",
        load_study,
        (
            _STUDY,
            argument(
                "--every", type=_seconds, metavar="SECONDS", default=5.0, help="time between two looks (default: 5)"
            ),
        ),
    ),
    "top": Verb(
        "results",
        "the best trials, in a table",
        """\
The best trials of a study that keep its constraints, best first, with their metrics and parameters.

Of several metrics: the Pareto front, then what would be the front without it, and so on.""",
        """\
aimlhpo top runs/digits
aimlhpo top runs/digits -n 3 --json
aimlhpo top runs/digits -n 100 --csv > best.csv
""",
        load_study,
        (
            _STUDY,
            argument(
                "-n",
                dest="number",
                type=partial(_number, "-n", "trials"),
                metavar="N",
                default=10,
                help="number of trials (default: 10)",
            ),
            argument("--json", action="store_true", help="as JSON, with what each changed in the model YAML"),
            argument("--csv", action="store_true", help="as CSV, with the columns of results.csv"),
        ),
    ),
    "submit": Verb(
        "jobs",
        "more SLURM jobs for a study that is under way",
        """\
Submit jobs for a study that was started before, with the files as they were then.

Workers are added while the study runs; one that was interrupted goes on.""",
        """\
aimlhpo submit runs/digits
aimlhpo submit runs/digits --jobs 5
aimlhpo submit runs/digits --section a100
aimlhpo submit hyperparameters.yml --jobs 5 --dry-run
""",
        load_study,
        (
            _STUDY,
            argument(
                "--jobs",
                type=partial(_number, "--jobs", "jobs"),
                metavar="N",
                help="number of jobs (default: slurm: jobs)",
            ),
            _SECTION,
            argument("--dry-run", action="store_true", help="show the script, submit nothing"),
            argument("--wait", action="store_true", help="follow the study to its end"),
        ),
    ),
    "stop": Verb(
        "jobs",
        "cancel a study's SLURM jobs",
        """\
Cancel the jobs of a study; what they were running is given back, and can go on later.

With --jobs, the study goes on with so many jobs less: jobs that wait in the queue are cancelled first, and agents that
run end after the trials that they are running. Only jobs that were submitted for this study are touched.""",
        """\
aimlhpo stop runs/digits
aimlhpo stop hyperparameters.yml --yes
aimlhpo stop runs/digits --jobs 5
""",
        load_study,
        (
            _STUDY,
            argument("-y", "--yes", action="store_true", help="do not ask"),
            argument(
                "--jobs",
                type=partial(_number, "--jobs", "jobs"),
                metavar="N",
                help="end N jobs only, each after the trials that it is running",
            ),
            _SECTION,
        ),
    ),
    "change": Verb(
        "jobs",
        "change the budget and other keys of a study, which may be running",
        """\
Change keys of a study, while it runs or later: its budget, the rules that end it, time limits, its jobs.

Agents take the new values up with their next trial. What they cannot take up is refused, with the way to do it. Each
change is kept in the study with its time, and shown by `aimlhpo status`.""",
        """\
aimlhpo change runs/digits optuna:n_trials=800
aimlhpo change runs/digits optuna:trial_timeout=7200 optuna:patience=50
aimlhpo change hyperparameters.yml slurm:jobs=30
aimlhpo change runs/digits 'optuna:enqueue=[{learning_rate: 0.01}]'
""",
        load_study,
        (_STUDY, argument("changes", nargs="+", metavar="section:key=value", help="what to change")),
    ),
    "results": Verb(
        "results",
        "rebuild results.csv and best.yml from the storage",
        "Rebuild results.csv and best.yml from the storage, which alone is the truth.",
        """\
aimlhpo results runs/digits
aimlhpo results hyperparameters.yml
""",
        load_study,
        (_STUDY,),
    ),
    "report": Verb(
        "results",
        "a page that shows what the search has found",
        """\
Write a page with what the search has found: one HTML file that opens in any browser, without a network.

It shows the best configuration, the history, what each parameter mattered, what it has cost, failures, and all
trials. It reads the study and changes nothing, so it can be made at any time, also while the study runs.""",
        """\
aimlhpo report runs/digits
aimlhpo report runs/digits --format png,pdf
aimlhpo report runs/digits --watch
""",
        load_study,
        (
            _STUDY,
            argument(
                "-o",
                "--output",
                type=Path,
                metavar="PATH",
                help="the page's file (default: report.html in the study's directory); the directory for png and pdf "
                "(default: figures)",
            ),
            argument(
                "--format",
                type=_formats,
                metavar="FORMATS",
                default=("html",),
                help="html, png or pdf, or several with commas; png and pdf are one file for each figure",
            ),
            argument("--watch", action="store_true", help="write it again until the study ends"),
            argument(
                "--every", type=_seconds, metavar="SECONDS", default=30.0, help="with --watch: how often (default: 30)"
            ),
        ),
    ),
    "confirm": Verb(
        "confirm",
        "train the best configurations again with fresh seeds",
        """\
Train the best configurations of a study again, each with several fresh seeds, and tell which one is the best: the mean
and the spread of each, and how probable it is that it is better than all others.

They do not count against the study's n_trials. Asking again goes on where it ended; with a larger --top or --seeds it
adds to what is there. best.yml follows the configuration that is proven.""",
        """\
aimlhpo confirm runs/digits
aimlhpo confirm runs/digits --top 3 --seeds 5 --local 2
aimlhpo confirm runs/digits --dry-run
""",
        load_study,
        (
            _STUDY,
            _count("--top", "configurations", 5, "how many of the best configurations"),
            _count("--seeds", "seeds", 3, "how often each is trained"),
            _local("train"),
            argument("--section", metavar="NAME", help="of several slurm sections, the one whose jobs train"),
            argument("--dry-run", action="store_true", help="show what would be trained, start nothing"),
            argument("--wait", action="store_true", help="follow submitted jobs to their end"),
            argument("--json", action="store_true", help="print what has been found as JSON, and start nothing"),
        ),
    ),
    "export": Verb(
        "confirm",
        "write what somebody else needs to train a configuration again",
        """\
Write a directory from which the best configuration, or that of any complete trial, can be trained again elsewhere: the
configuration, the objective with the modules beside it that it imports, versions, the seed, and a README with the
command and the value to expect. An existing directory must be empty.""",
        """\
aimlhpo export runs/digits best-digits
aimlhpo export runs/digits trial-17 --trial 17
""",
        load_study,
        (
            _STUDY,
            argument("directory", type=Path, metavar="DIR", help="where to write"),
            argument("--trial", type=int, metavar="N", help="the trial's number (default: that of the best)"),
        ),
    ),
    "track": Verb(
        "tools",
        "tell MLflow or TensorBoard of a study's trials",
        """\
Tell MLflow and TensorBoard of a study's trials.

A study whose `log` section asks for it does so by itself while it runs. This sends what an outage has left out, or a
whole study that was run without. What has arrived before is not sent again.""",
        """\
aimlhpo track runs/digits
aimlhpo track runs/digits --mlflow http://127.0.0.1:5000
aimlhpo track runs/digits --tensorboard
""",
        load_study,
        (
            _STUDY,
            argument("--mlflow", nargs="?", const=True, metavar="URI", help="tell MLflow, here or in save_path"),
            argument("--tensorboard", nargs="?", const=True, metavar="DIR", help="write for TensorBoard"),
        ),
    ),
    "dashboard": Verb(
        "tools",
        "look at a study in Optuna's dashboard",
        """\
Show a study in Optuna's dashboard, in a browser; it may be running.

The dashboard can be reached from this machine only, changes nothing in the study, and ends with Ctrl-C.
It needs: pip install 'aimlhpo[dashboard]'""",
        """\
aimlhpo dashboard runs/digits
aimlhpo dashboard runs/digits --port 8090
""",
        load_study,
        (_STUDY, argument("--port", type=_port, metavar="N", help="TCP port (default: 8080, or a free one)")),
    ),
    "migrate": Verb(
        "files",
        "write a hyperparameter file of echo-opt anew",
        """\
Write a hyperparameter file of NCAR's echo-opt in the keys of this command, beside it, with its comments.

Such a file runs as it stands, too, unless its jobs are for PBS. The file itself is left as it is.""",
        """\
aimlhpo migrate hyperparameters.yml
aimlhpo migrate hyperparameters.yml -o digits.yml
""",
        None,
        (
            argument("file", type=Path, metavar="HYPERPARAMETERS.yml", help="the file of echo-opt"),
            argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: FILE.new.yml)"),
        ),
    ),
    "schema": Verb(
        "files",
        "print the JSON schema of the hyperparameter file",
        "Print the JSON schema of the hyperparameter file.",
        "aimlhpo schema > hyperparameters.schema.json",
        None,
    ),
    "agent": Verb(
        "jobs",
        "",
        "Run one agent of a study; SLURM jobs do this.",
        "aimlhpo agent runs/digits",
        load_study,
        (argument("study", type=Path, metavar="SAVE_PATH", help="the study's directory"), _SECTION),
    ),
}
"""Every verb, in the order in which help lists them."""
