"""Where the storage keeps only the first records of a batch, no trial is lost to those who ask again or take over.

So it is with a full disk, and where a writer is killed or its connection breaks between two records.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.trial import TrialState

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.requests import Claim
from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.base import CLAIM, PAUSED, RELEASED, OpenTrial
from aimlhpo.storage.open import open_storage
from tests.ledgers import SingleRequestLedger

GRACE = 60.0
LONGEST = 12  # records of a batch here, at most


@dataclass
class Disk:
    """Where records are appended; has room for so many more."""

    room: float = float("inf")

    def has_room_for(self, records: Sequence[Any]) -> Sequence[Any]:
        kept = records[: int(min(self.room, len(records)))]
        self.room -= len(kept)
        return kept


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    for backend in (JournalFileBackend, JournalRedisBackend):
        monkeypatch.setattr(backend, "append_logs", _limited(backend.append_logs, made))
    return made


def _limited(append: Callable[..., None], disk: Disk) -> Callable[..., None]:
    def append_logs(backend: Any, logs: list[dict[str, Any]]) -> None:
        kept = disk.has_room_for(logs)
        if kept:
            append(backend, kept)
        if len(kept) < len(logs):
            raise OSError(errno.ENOSPC, "No space left on device")

    return append_logs


@pytest.fixture(params=["journal", "redis"])
def url(request: pytest.FixtureRequest, make_storage_url: Callable[[str], str]) -> str:
    return make_storage_url(request.param)


@dataclass
class Site:
    """A study with one trial, which the agent `first` runs; `other` is an agent that has the study open, too."""

    study: optuna.Study
    first: SingleRequestLedger
    other: SingleRequestLedger
    claim: Claim
    disk: Disk

    @property
    def trial(self) -> OpenTrial:
        frozen = self.study.trials[0]
        attributes = (frozen.system_attrs.get(key) for key in (CLAIM, RELEASED, PAUSED))
        return OpenTrial(frozen._trial_id, frozen.number, frozen.state, *attributes)

    def cut_off(self, room: int, work: Callable[[], bool]) -> bool:
        """Do the work with room for so many records. Whether it was cut off."""
        self.disk.room = room
        try:
            assert work()
        except OSError:
            return True
        finally:
            self.disk.room = float("inf")
        return False


@pytest.fixture
def make_site(url: str, tmp_path: Path, disk: Disk) -> Callable[..., Site]:
    storage, made = open_storage(url), 0

    def make(most: int = 5) -> Site:
        nonlocal made
        made += 1
        study = optuna.create_study(study_name=f"s{made}", storage=storage)
        paths = StudyPaths(tmp_path / "study", study.study_name)
        paths.create()
        registry = Registry(paths.leases, GRACE)
        again = optuna.load_study(study_name=study.study_name, storage=open_storage(url))
        first = SingleRequestLedger(study, paths, 3, "first", registry, max_interruptions=most)
        other = SingleRequestLedger(again, paths, 3, "other", registry, max_interruptions=most)
        claim = first.claim(0, "cpu")
        assert isinstance(claim, Claim)
        return Site(again, first, other, claim, disk)

    return make


def release(site: Site) -> Callable[[], bool]:
    return lambda: site.first.release(site.claim, "node failure", 1.0)


def give_back(site: Site) -> Callable[[], bool]:
    return lambda: site.first.release(site.claim, None)


def pause(site: Site) -> Callable[[], bool]:
    record = {"rung": 1, "seconds": 1.0}
    return lambda: site.first.finish(site.claim, TrialState.WAITING, None, record, [(0, 0.5)])


def each_cut(make_site: Callable[..., Site], work: Callable[[Site], Callable[[], bool]], most: int = 5) -> list[Site]:
    """Sites where the work was cut off after no record, after one, and so on up to the last but one."""
    cut = []
    for room in range(LONGEST):
        site = make_site(most)
        if not site.cut_off(room, work(site)):
            break
        cut.append(site)
    assert 1 < len(cut) < LONGEST
    return cut


def test_a_release_that_is_asked_for_again_counts_once(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, release):
        assert release(site)()
        trial, history = site.trial, site.trial.released or {}
        assert (trial.state, trial.claim) == (TrialState.WAITING, None)
        assert (history["attempts"], history["fruitless"], history["seconds"]) == (1, 1, 1.0)


def test_a_release_that_is_cut_off_again_and_again_counts_once(make_site: Callable[..., Site]) -> None:
    for room in (1, 2):
        site = make_site()
        for _ in range(4):
            site.cut_off(room, release(site))
        assert site.trial.attempts == 1


@pytest.mark.parametrize("work", [release, give_back])
def test_the_trial_of_an_agent_that_dies_in_the_middle_goes_on_elsewhere(
    make_site: Callable[..., Site], work: Callable[[Site], Callable[[], bool]]
) -> None:
    for site in each_cut(make_site, work):
        site.other.reap()
        assert site.trial.state == TrialState.WAITING
        taken = site.other.claim(0, "cpu")
        assert isinstance(taken, Claim)
        assert (taken.number, taken.attempt) == (0, 2 if site.trial.released else 1)
        assert not work(site)()
        assert (site.trial.state, site.trial.token) == (TrialState.RUNNING, taken.token)


def test_a_claim_that_is_given_back_again_counts_no_attempt(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, give_back):
        assert give_back(site)()
        assert (site.trial.state, site.trial.claim, site.trial.attempts) == (TrialState.WAITING, None, 0)


def test_a_pause_that_is_asked_for_again_is_taken_and_counts_once(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, pause):
        assert pause(site)()
        trial = site.trial
        assert (trial.is_paused, trial.rung, trial.attempts) == (True, 1, 1)
        assert site.study.trials[0].intermediate_values == {0: 0.5}
        assert site.other.counts().paused == 1


def test_the_paused_trial_of_an_agent_that_dies_in_the_middle_is_found(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, pause):
        site.other.reap()
        assert site.trial.state == TrialState.WAITING
        assert site.trial.attempts == 1


def test_a_trial_that_is_given_up_is_given_up_when_asked_again(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, release, most=1):
        assert release(site)()
        assert site.trial.state == TrialState.FAIL
        assert record_of(site.study.trials[0])["attempts"] == 1
        assert not site.first.finish(site.claim, TrialState.COMPLETE, [1.0], {})


def test_a_release_that_is_asked_for_again_leaves_later_claims_alone(make_site: Callable[..., Site]) -> None:
    for site in each_cut(make_site, release):
        other = site.other.claim(0, "cpu")  # the same trial, where it was given back, or a new one
        assert isinstance(other, Claim)
        site.first.release(site.claim, "node failure", 1.0)
        assert site.other.finish(other, TrialState.COMPLETE, [1.0], {})
