"""The trials' own checkpoint directories: when they last changed, which are kept, and the removal of the others."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.config.paths import StudyPaths
from aimlhpo.space.constraints import holds
from aimlhpo.storage.trials import is_own

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

INTERVAL = 10.0  # seconds between two removals while trials run
_NAME = re.compile(r"trial-(\d+)")


def newest_file(directory: Path) -> float:
    """When anything in the directory last changed, in seconds since the epoch; 0 where there is none."""
    times = [0.0]
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                times.append(os.stat(os.path.join(folder, name)).st_mtime)
            except FileNotFoundError:  # replaced meanwhile
                continue
    return max(times)


class Checkpoints:
    """Removes the directories that `keep_checkpoints` does not keep.

    Which these are is read from the storage each time, so that several agents may do it, and the next removal does what
    an earlier one was kept from.

    Runs in: the storage thread; the files are removed in a thread of its own ("checkpoints"), so that nothing waits.
    """

    def __init__(self, study: optuna.Study, config: Config, interval: float = INTERVAL) -> None:
        self._study, self._paths = study, config.paths
        self._keep, self._interval = config.optuna.keep_checkpoints, interval
        self._due = 0.0
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    def tidy(self) -> None:
        """Remove what is unwanted by now, at most once in an interval; returns at once."""
        if self._keep != "all" and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval
            self._remove_unwanted()

    def close(self) -> None:
        """The same a last time, and wait for the end of it."""
        if self._keep != "all":
            self._remove_unwanted()
        self._remover.shutdown()

    def _remove_unwanted(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        kept = best_of(trials, self._study.directions) if self._keep == "best" else set()
        for path in unwanted(self._paths, trials, kept):
            # A worker that was given up may still write there: what is left then is removed next time.
            self._remover.submit(shutil.rmtree, path, ignore_errors=True)


def unwanted(paths: StudyPaths, trials: Sequence[FrozenTrial], kept: set[int]) -> Iterator[Path]:
    """The directories of finished trials that are not to be kept; links are no directories of ours."""
    finished = {trial.number for trial in trials if trial.state.is_finished() and is_own(trial)}
    for path in sorted(paths.checkpoints.glob("trial-*")):
        match = _NAME.fullmatch(path.name)
        number = int(match[1]) if match else -1
        if number in finished - kept and path == paths.checkpoint(number) and path.is_dir() and not path.is_symlink():
            yield path


def best_of(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> set[int]:
    """The numbers of the study's own best trials: of one, or of the Pareto front.

    Better trials may come, but what is not among them now never will be again.
    """
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    alone = len(signs) == 1  # then the first of equals is the best
    front: list[tuple[int, list[float]]] = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE and is_own(trial) and holds(trial.constraints):
            losses = [sign * value for sign, value in zip(signs, trial.values, strict=True)]
            if not any(_dominates(known, losses) or (alone and known == losses) for _, known in front):
                front = [(number, known) for number, known in front if not _dominates(losses, known)]
                front.append((trial.number, losses))
    return {number for number, _ in front}


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return list(one) != list(other) and all(a <= b for a, b in zip(one, other, strict=True))
