"""What is changed in a study's configuration while it runs: the budget, the rules that stop it, time limits, its jobs.

Each change is kept in the study itself, with the time and the values, in the system attribute CHANGES. It is written
under the ledger's lock, and every decision of a ledger is made from an overview that holds the changes. So no claim is
decided by an old number once a change is written. The copy of the configuration beside the study is changed as well,
for agents and commands that start later.

`change_study` is for the command that changes a study that runs. `settle_start` is for the one that starts it again,
from files that do not know of changes. Both run in a command's main thread.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from aimlhpo.config.load import differences, load_snapshot, with_values, written
from aimlhpo.config.schema import Config
from aimlhpo.errors import ConfigError, Problem, show
from aimlhpo.ledger.completion import STOPPED_BY_USER, Completion
from aimlhpo.ledger.ledger import CurrentConfig
from aimlhpo.ledger.requests import Claim, Release
from aimlhpo.storage.base import CHANGES, Overview, PendingState, backend_of, count_overview, own
from aimlhpo.storage.locks import locked
from aimlhpo.storage.open import without_experimental_warnings
from aimlhpo.storage.trials import count_imported

BUDGET, ENQUEUED = "optuna:n_trials", "optuna:enqueue"
CHANGEABLE = (
    BUDGET, "optuna:timeout", "optuna:timeout_scope", "optuna:target_value", "optuna:max_gpu_hours",
    "optuna:patience", "optuna:terminator", "optuna:max_consecutive_failures", "optuna:at_stop", "optuna:trial_timeout",
    "optuna:max_retries", "optuna:max_interruptions", ENQUEUED, "slurm:jobs", "slurm:keep", "slurm:max_submissions",
    "slurm:requeue", "slurm:max_requeues", "slurm:gpu_weight",
)  # fmt: skip
"""The keys that agents take up while they run, as `section:key`; in a list, each section's (`slurm:NAME:key`)."""

_BY_COMMAND, _BY_START = "change", "start"


@dataclass(frozen=True)
class StudyChange:
    """One key that was changed.

    Attributes:
        key: as `section:key`.
        before: the value as it was written before; None where the key was not written.
        value: the value as it is written now.
        at: when, in seconds since the epoch.
        by: "change" for the command `aimlhpo change`, "start" for a later start of the study.
    """

    key: str
    before: Any
    value: Any
    at: float
    by: str = _BY_COMMAND

    def __str__(self) -> str:
        return f"{_in_words(self.key)} {_show(self.before)} -> {_show(self.value)}"


def _is_changeable(key: str) -> bool:
    section, _, rest = key.partition(":")
    return f"{section}:{rest.rpartition(':')[2]}" in CHANGEABLE


def _in_words(key: str) -> str:
    return key.replace(":", ": ")


def _show(value: Any) -> str:
    return "not set" if value is None else show(value)


def changes_in(stored: Iterable[Mapping[str, Any]]) -> list[StudyChange]:
    """The changes in an overview of a study, the oldest first."""
    return [StudyChange(**change) for change in stored]


def read_changes(study: optuna.Study) -> list[StudyChange]:
    """The changes of a study, the oldest first."""
    return changes_in(study._storage.get_study_system_attrs(study._study_id).get(CHANGES, ()))


def current_config(study: optuna.Study, config: Config) -> Config:
    """The configuration as it is now; `config` was read some time ago."""
    current = CurrentConfig(config)
    current.take_up(study._storage.get_study_system_attrs(study._study_id).get(CHANGES, ()))
    return current.config


def change_study(study: optuna.Study, asked: Config, values: Mapping[str, Any]) -> tuple[list[StudyChange], list[int]]:
    """Give keys of a study, which may be running, other values.

    Where the budget becomes smaller than what has finished and runs, the trials that began last are given back.

    Args:
        study: the study.
        asked: its configuration with the new values, which has been checked.
        values: these values as they are written, by key.

    Returns the changes, and the numbers of the trials that were given back. Raises ConfigError, with nothing changed,
    for a budget that is smaller than what has finished.
    """
    given_back: list[int] = []
    with locked(asked.paths.lock):
        overview = backend_of(study._storage).overview(study._study_id)
        counts = count_overview(overview, count_imported(study))
        if BUDGET in values:
            if asked.optuna.n_trials < counts.finished:
                found = f"{asked.optuna.n_trials} is fewer than the {counts.finished} trials that have finished"
                legal = f"{counts.finished}, which ends the study, or more"
                raise ConfigError(Problem(_in_words(BUDGET), found, legal))
            # Before the change is written: should this be cut short, the old budget holds, and nothing is lost.
            given_back = _give_back_surplus(study, asked, overview)
        before = current_config(study, load_snapshot(asked.paths))  # others may have changed it since it was read
        made = _write_changes(study, before, values, overview, _BY_COMMAND)
        with_values(before, values).write_snapshot()
    if ENQUEUED in values:
        with without_experimental_warnings():
            for entry in asked.enqueued():
                study.enqueue_trial(asked.space.encode(entry), skip_if_exists=True)
    return made, given_back


def _write_changes(
    study: optuna.Study, before: Config, values: Mapping[str, Any], overview: Overview, by: str
) -> list[StudyChange]:
    """Keep changes with the study. The caller holds the ledger's lock."""
    now = time.time()
    made = [StudyChange(key, written(before, key), value, now, by) for key, value in values.items()]
    if made:
        kept = [*overview.changes, *map(asdict, made)]
        study._storage.set_study_system_attr(study._study_id, CHANGES, kept)
    return made


def _give_back_surplus(study: optuna.Study, config: Config, overview: Overview) -> list[int]:
    """Give back the claimed trials that the budget has no room for: those that have not begun, then the newest.

    Their agents learn from the storage that they have lost them. The caller holds the ledger's lock.
    """
    counts = count_overview(overview, count_imported(study))
    surplus = counts.finished + counts.claimed - config.optuna.n_trials
    held = [trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.claim]
    begun = {trial.number: float((trial.claim or {}).get("since") or 0.0) for trial in held}
    chosen = sorted(held, key=lambda trial: (trial.begun, -begun[trial.number], -trial.number))[: max(0, surplus)]
    if not chosen:
        return []
    storage, now, options = own(study._storage), time.time(), config.optuna
    completion = Completion(study, storage, config.paths, options.max_retries, options.max_interruptions)
    with storage.gather() as operations:
        pending = PendingState(overview, operations)
        for trial in chosen:
            claim = Claim(trial.trial_id, trial.number, trial.token or "", trial.attempts + 1)
            seconds = max(0.0, now - begun[trial.number]) if begun[trial.number] else 0.0
            completion.release(pending, Release(claim, STOPPED_BY_USER if trial.begun else None, seconds))
        storage.backend.apply(operations)
    return sorted(trial.number for trial in chosen)


def settle_start(study: optuna.Study, config: Config, given: Collection[str] = ()) -> tuple[Config, list[str]]:
    """What holds when a study is started again: its changes, or what the files say now.

    A value that the user has written anew since the last start wins, and is kept as a change, so that agents that run
    take it up; so does one on the command line. Where the files say what they said then, the change wins.

    Args:
        study: the study, which was just loaded.
        config: what the files and the command line say.
        given: the keys (`section:key`) that the command line gives.

    Returns the configuration that holds, which is kept beside the study, and a line for each change that wins.
    """
    lines: list[str] = []
    files = config
    with locked(config.paths.lock):
        overview = backend_of(study._storage).overview(study._study_id)
        changes = changes_in(overview.changes)
        last = {change.key: change for change in changes}
        said = {change.key: change.before for change in reversed(changes)}
        said |= {change.key: change.value for change in changes if change.by == _BY_START}
        before = with_values(_last_started(config), {change.key: change.value for change in changes})
        anew: dict[str, Any] = {}
        for key, value in differences(before, files).items():
            if not _is_changeable(key):
                continue
            if key not in last or key in given or value != said[key]:
                anew[key] = value
                continue
            config = with_values(config, {key: last[key].value})
            lines.append(_describe_winner(last[key], said[key], config.optuna.save_path))
        # The file has caught up with a change: from now on this is what it said before.
        caught_up = {key: change.value for key, change in last.items() if written(files, key) == change.value}
        anew |= {key: value for key, value in caught_up.items() if said[key] != value}
        # Before the first trial nobody is at work by the old values, but agents go by the changes that are there.
        if changes or study._storage.get_n_trials(study._study_id):
            if BUDGET in anew:
                _give_back_surplus(study, config, overview)
            _write_changes(study, before, anew, overview, _BY_START)
        config.write_snapshot()
    return config, lines


def _last_started(config: Config) -> Config:
    """What the study was last started with; `config` where that is not known here.

    The copy beside a study is that of the last study that was started with this `save_path`.
    """
    with suppress(ConfigError):
        found, options = load_snapshot(config.paths), config.optuna
        if (found.optuna.study_name, found.optuna.storage) == (options.study_name, options.storage):
            return found
    return config


def _describe_winner(change: StudyChange, said: Any, save_path: str) -> str:
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(change.at))
    back = shlex.quote(f"{change.key}={'null' if said is None else json.dumps(said)}")
    return (
        f"{_in_words(change.key)} is {_show(change.value)}, as `aimlhpo change` set it on {date}; the file still says "
        f"{_show(said)} (to go back to that: aimlhpo change {shlex.quote(save_path)} {back})"
    )


def refuse_unchangeable(before: Config, after: Config, new_study: str) -> None:
    """Raise ConfigError for each key in which `after` differs that no running study can take up.

    `new_study` are the lines of a study that goes on with another search space.
    """
    problems = []
    for key in differences(before, after):
        if _is_changeable(key):
            continue
        where = _in_words(key)
        if key in ("optuna:parameters", "optuna:metric", "optuna:direction", "optuna:constraints"):
            found = "cannot be changed while the study runs: its trials would not fit each other"
            legal = f"a new study that learns from this one's trials:{new_study}"
            if key == "optuna:parameters":
                legal = (
                    "for numeric ranges, `aimlhpo stop`, then `aimlhpo optimize` with reload: 1 and --allow-changes; "
                    f"for all else, {legal}"
                )
        elif key in ("optuna:study_name", "optuna:storage", "optuna:save_path"):
            found = "cannot be changed: this is where the study is, and not how it runs"
            legal = "`aimlhpo optimize` with reload: 0, for another study"
        else:
            found = "cannot be changed while the study runs: agents read it once, when they start"
            legal = "`aimlhpo stop`, then `aimlhpo optimize` with reload: 1 and the new value"
        problems.append(Problem(where, found, legal))
    if after.model != before.model:
        found = "cannot be changed while the study runs: trials with different values would be compared"
        problems.append(Problem("the model YAML", found, f"a new study that learns from this one's:{new_study}"))
    if problems:
        raise ConfigError(problems)
