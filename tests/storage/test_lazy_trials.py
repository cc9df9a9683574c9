"""Trials that read their attributes late."""

from __future__ import annotations

from collections.abc import Iterator

from optuna.trial import TrialState

from aimlhpo.storage.optuna_internals import LazyTrial


class ReadMeanwhile(list[tuple[str, str]]):
    """Texts of attributes: while one thread reads them, another one reads them, too."""

    trial: LazyTrial
    busy = False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if not self.busy:
            self.busy = True
            assert self.trial.user_attrs == {"by": "us"}
        return super().__iter__()


class NoCurves:
    def read(self, trial: LazyTrial) -> None:
        trial.intermediate_values = {}


def test_two_threads_read_the_same_attributes() -> None:
    texts = ReadMeanwhile([("by", '"us"')])
    times = {"datetime_start": None, "datetime_complete": None}
    known = {"trial_id": 0, "number": 0, "state": TrialState.FAIL, "values": None, "params": {}, "distributions": {}}
    texts.trial = trial = LazyTrial.of(texts, [], NoCurves(), **known, **times)
    assert trial.user_attrs == {"by": "us"}
