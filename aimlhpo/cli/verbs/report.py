"""`aimlhpo report`: a page with what the search has found, and its figures as files."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.errors import ExitCode
from aimlhpo.ledger.changes import current_config
from aimlhpo.results.report.page import write_figures, write_report
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


def run(config: Config, arguments: Namespace) -> int:
    study = load_study(config)
    while True:
        config = current_config(study, config)
        ended = _has_ended(study, config)  # before the study is read, so that what is written last is its end
        again = arguments.watch and not ended
        for path in _write(study, config, arguments, arguments.every if again else None):
            print(path, flush=True)
        if not again:
            return ExitCode.DONE
        time.sleep(arguments.every)


def _write(study: optuna.Study, config: Config, arguments: Namespace, every: float | None) -> list[Path]:
    written, formats = [], [name for name in arguments.format if name != "html"]
    if "html" in arguments.format:
        page = arguments.output if arguments.output and not formats else config.paths.report
        written.append(write_report(study, config, page, refresh=None if every is None else max(1, round(every))))
    if formats:
        written += write_figures(study, config, arguments.output or config.paths.figures, formats)
    return written


def _has_ended(study: optuna.Study, config: Config) -> bool:
    counts = count(study.get_trials(deepcopy=False))
    return find_stop_reason(study, config, counts) is not None and not counts.claimed
