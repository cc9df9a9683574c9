"""`aimlhpo track`: tell tracking tools of all trials of a study."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from aimlhpo.check.settings import with_tracking
from aimlhpo.errors import ConfigError, ExitCode, Problem, StorageError, StudyError
from aimlhpo.ledger.leases import Election
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.locks import locked
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count
from aimlhpo.tracking.sync import TrackingSync
from aimlhpo.tracking.targets import TRACKERS, asked_trackers, make_targets, tracking_problems

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


def run(config: Config, arguments: Namespace) -> int:
    given = {name: getattr(arguments, name, None) for name in TRACKERS}
    config = with_tracking(config, {name: value for name, value in given.items() if value is not None})
    problems = [*tracking_problems(config)]
    if not asked_trackers(config):
        problems.append(Problem("log", "the study asks for no tracking tool", "--mlflow [URI] or --tensorboard [DIR]"))
    if problems:
        raise ConfigError(problems)

    study = load_study(config)
    config.paths.create()
    with Election(config.paths.state / "tracker.lock") as election:
        if not election.won():
            raise StudyError(f"an agent of study {config.optuna.study_name} runs, and tells the tools itself")
        targets = make_targets(config, study)
        with locked(config.paths.tracking_lock):
            counts = count(study.get_trials(deepcopy=False))
            reason = find_stop_reason(study, config, counts)
            ended = "stopped" if reason is None or reason.is_failure else "finished"
            missing = TrackingSync(config, study, targets, lambda line: None).finish(ended)
    if missing:
        raise StorageError("\n".join(missing))
    for target in targets:
        print(f"{target.name} has {counts.finished + counts.failed} finished trials of {config.optuna.study_name}")
    return ExitCode.DONE
