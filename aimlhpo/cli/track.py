"""`aimlhpo track`: tell tracking tools of all trials of a study."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.arguments import add_study_argument, make_parser
from aimlhpo.errors import ConfigError, ExitCode, Problem, StorageError, StudyError

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_SUMMARY = """\
Tell MLflow and TensorBoard of a study's trials.

A study whose `log` section asks for it does so by itself while it runs. This sends what an outage has left out, or a
whole study that was run without. What has arrived before is not sent again."""
_EXAMPLES = """\
aimlhpo track runs/digits
aimlhpo track runs/digits --mlflow http://127.0.0.1:5000
aimlhpo track runs/digits --tensorboard
"""


def run(argv: Sequence[str]) -> int:
    parser = make_parser("track", _SUMMARY, _EXAMPLES)
    add_study_argument(parser)
    parser.add_argument("--mlflow", nargs="?", const=True, metavar="URI", help="tell MLflow, here or in save_path")
    parser.add_argument("--tensorboard", nargs="?", const=True, metavar="DIR", help="write for TensorBoard")
    arguments = parser.parse_args(argv)

    from aimlhpo.check.environment import tracking_problems
    from aimlhpo.check.settings import with_tracking
    from aimlhpo.cli.arguments import load_target

    config = with_tracking(load_target(arguments.study), _asked(arguments))
    problems = [*tracking_problems(config), *_nothing_asked(config)]
    if problems:
        raise ConfigError(problems)
    return _send(config)


def _asked(arguments: Namespace) -> dict[str, object]:
    given = {"mlflow": arguments.mlflow, "tensorboard": arguments.tensorboard}
    return {tool: value for tool, value in given.items() if value is not None}


def _nothing_asked(config: Config) -> list[Problem]:
    if config.log.mlflow is not None or config.log.tensorboard is not None:
        return []
    return [Problem("log", "the study asks for no tracking tool", "--mlflow [URI] or --tensorboard [DIR]")]


def _send(config: Config) -> int:
    from aimlhpo.ledger.leases import Election
    from aimlhpo.search.stopping import find_stop_reason
    from aimlhpo.storage.locks import locked
    from aimlhpo.storage.study import load_study
    from aimlhpo.storage.trials import count
    from aimlhpo.tracking.__main__ import make_targets
    from aimlhpo.tracking.follower import TrackingSync

    study = load_study(config)
    config.paths.create()
    with Election(config.paths.state / "tracker.lock") as election:
        if not election.won():
            raise StudyError(f"an agent of study {config.optuna.study_name} runs, and tells the tools itself")
        targets = make_targets(config, study)
        with locked(config.paths.tracking_lock):
            counts = count(study.get_trials(deepcopy=False))
            ended = "finished" if find_stop_reason(study, config, counts) else "stopped"
            lacks = TrackingSync(config, study, targets, lambda line: None).finish(ended)
    if lacks:
        raise StorageError("\n".join(lacks))
    for target in targets:
        print(f"{target.name} has {counts.finished + counts.failed} finished trials of {config.optuna.study_name}")
    return ExitCode.DONE
