"""What a journal's records say, applied one by one: Optuna's own rules, with less copying."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, json_to_distribution
from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult
from optuna.trial import FrozenTrial, TrialState

FINISHED = frozenset(state for state in TrialState if state.is_finished())
_APPLY = {
    operation.value: f"_apply_{operation.name.lower()}"
    for operation in JournalOperation
    if operation is not JournalOperation.DISCARD_TRIALS  # which Optuna ignores, too
}


@dataclass
class Tally:
    """Trials of a study by state, and the ids of those that are not finished."""

    states: Counter[TrialState] = field(default_factory=Counter)
    open: dict[int, None] = field(default_factory=dict)


class Replay(JournalStorageReplayResult):
    """The studies and trials of a journal.

    Attributes:
        loading: nobody else has seen the trials yet, so that reports are put into them without a copy.
    """

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self.loading = True
        self._last_created_trial_id_by_this_process = -1  # read after a trial was appended in a batch, not yet read
        self._endings = 0
        self._tallies: dict[int, Tally] = {}
        self._kinds: dict[tuple[int, str], BaseDistribution] = {}
        self._lists: dict[tuple[int, frozenset[TrialState]], tuple[int, list[FrozenTrial]]] = {}

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        for log in logs:
            self.log_number_read += 1
            name = _APPLY.get(log["op_code"])
            if name is not None:
                getattr(self, name)(log)

    def get_all_trials(self, study_id: int, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """Those in the states; what nobody changes any more is gone through once, not each time."""
        self.get_study(study_id)
        wanted = frozenset(state for state in TrialState if states is None or state in states)
        ended = self._ended(study_id, wanted & FINISHED) if wanted & FINISHED else []
        if wanted <= FINISHED:
            return list(ended)
        opened = (self._trials[trial_id] for trial_id in self.tally(study_id).open)
        return sorted([*ended, *(trial for trial in opened if trial.state in wanted)], key=lambda trial: trial.number)

    def tally(self, study_id: int) -> Tally:
        return self._tallies.setdefault(study_id, Tally())

    def _ended(self, study_id: int, wanted: frozenset[TrialState]) -> list[FrozenTrial]:
        endings, trials = self._lists.get((study_id, wanted), (-1, []))
        if endings != self._endings:
            trials = super().get_all_trials(study_id, wanted)
            self._lists[study_id, wanted] = self._endings, trials
        return trials

    def _apply_delete_study(self, log: dict[str, Any]) -> None:
        super()._apply_delete_study(log)
        self._lists = {}

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        before = len(self._trials)
        super()._apply_create_trial(log)
        if len(self._trials) > before:
            self.note_new(log["study_id"], self._trials[before])

    def _apply_set_trial_state_values(self, log: dict[str, Any]) -> None:
        before = self._trials.get(log["trial_id"])
        super()._apply_set_trial_state_values(log)
        after = self._trials.get(log["trial_id"])
        if before is not None and after is not None and after is not before:
            self._note_state(self._trial_id_to_study_id[log["trial_id"]], before.state, after)

    def _note_state(self, study_id: int, before: TrialState | None, trial: FrozenTrial) -> None:
        tally = self.tally(study_id)
        tally.states[trial.state] += 1
        if before is not None:
            tally.states[before] -= 1
        if trial.state.is_finished():
            tally.open.pop(trial._trial_id, None)
            self._endings += 1
        else:
            tally.open[trial._trial_id] = None

    def note_new(self, study_id: int, trial: FrozenTrial) -> None:
        """Count a trial, and remember the kinds of its parameters."""
        self._note_state(study_id, None, trial)
        self._note_kinds(study_id, trial)

    def _note_kinds(self, study_id: int, trial: FrozenTrial) -> None:
        """Remember which kind of parameter goes under which name: the study's later trials have the same."""
        for name, kind in trial.distributions.items():
            self._kinds.setdefault((study_id, name), kind)

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name, kind = log["trial_id"], log["param_name"], distribution(log["distribution"])
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        try:
            known = self._kinds.setdefault((self._trial_id_to_study_id[trial_id], name), kind)
            check_distribution_compatibility(known, kind)
        except ValueError:
            if self._is_issued_by_this_worker(log):
                raise
            return
        trial = copy.copy(self._trials[trial_id])
        trial.params = {**trial.params, name: kind.to_external_repr(log["param_value_internal"])}
        trial.distributions = {**trial.distributions, name: kind}
        self._trials[trial_id] = trial

    def _apply_set_trial_intermediate_value(self, log: dict[str, Any]) -> None:
        if not self.loading:
            super()._apply_set_trial_intermediate_value(log)
            return
        trial = self._trials.get(log["trial_id"])
        if trial is not None and not trial.state.is_finished():
            trial.intermediate_values[log["step"]] = log["intermediate_value"]


@lru_cache(maxsize=4096)
def distribution(text: str) -> BaseDistribution:
    """The distribution of a JSON text; trials of one study share it."""
    return json_to_distribution(text)
