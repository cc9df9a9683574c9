"""The budget and the claims, on every storage: one contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.leases import Holder, Lease, Registry
from aimlhpo.ledger.requests import Beginning, Claim, ClaimRequest, LedgerBatch, NoTrial, Release, Result
from aimlhpo.search.rungs import ASHA, Promotion
from aimlhpo.search.stopping import ConsecutiveFailures, StoppingCriteria
from aimlhpo.storage.attributes import STUDY_ATTR, record_of, set_study_attribute
from aimlhpo.storage.base import CLAIM, backend_of, own
from aimlhpo.storage.open import open_storage
from aimlhpo.storage.optuna_internals import PUBLIC_ONLY
from tests.conftest import STORAGE_KINDS
from tests.ledgers import SingleRequestLedger

GRACE = 60.0

Open = Callable[..., SingleRequestLedger]


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    paths = StudyPaths(tmp_path / "study", "s")
    paths.create()
    return paths


@pytest.fixture(params=[*STORAGE_KINDS, "mysql", "sqlite by the public interface", "journal by the public interface"])
def study(
    request: pytest.FixtureRequest, make_storage_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> optuna.Study:
    kind, _, way = request.param.partition(" by ")
    if way:
        monkeypatch.setenv(PUBLIC_ONLY, "1")
    storage = own(open_storage(make_storage_url(kind)))
    return optuna.create_study(study_name="s", storage=storage)


@pytest.fixture
def ledger(study: optuna.Study, paths: StudyPaths) -> SingleRequestLedger:
    return SingleRequestLedger(study, paths, 3, "here", Registry(paths.leases, GRACE))


def take(ledger: SingleRequestLedger) -> Claim:
    claim = ledger.claim(0, "cpu")
    assert isinstance(claim, Claim)
    return claim


def test_budget_is_handed_out_once(ledger: SingleRequestLedger) -> None:
    claims = [take(ledger) for _ in range(3)]
    assert sorted(claim.number for claim in claims) == [0, 1, 2]
    assert ledger.claim(0, "cpu") is NoTrial.WAIT


def test_trial_that_is_interrupted_too_often_without_getting_on_fails(study: optuna.Study, paths: StudyPaths) -> None:
    ledger = SingleRequestLedger(study, paths, 3, "here", Registry(paths.leases, GRACE), max_interruptions=2)
    first = take(ledger)
    assert ledger.release(first, "walltime")
    again = take(ledger)
    assert again.number == first.number
    assert ledger.release(again, "walltime")
    given_up = study.trials[first.number]
    assert (given_up.state, record_of(given_up)["cause"]) == (TrialState.FAIL, "walltime")


def test_a_trial_that_is_given_up_is_not_claimed_in_the_same_batch(study: optuna.Study, paths: StudyPaths) -> None:
    ledger = SingleRequestLedger(study, paths, 3, "here", Registry(paths.leases, GRACE), max_interruptions=1)
    lost = take(ledger)
    answer = ledger.process(
        LedgerBatch(releases=[Release(lost, "walltime")], claim_requests=[ClaimRequest("next", 0, "cpu", since=1.0)])
    )
    claim = answer.claims["next"]
    assert isinstance(claim, Claim)
    assert claim.number == 1
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert ledger.left(ledger.counts()) == 2


def test_a_result_that_comes_after_its_trial_was_given_up_is_refused(study: optuna.Study, paths: StudyPaths) -> None:
    ledger = SingleRequestLedger(study, paths, 3, "here", Registry(paths.leases, GRACE), max_interruptions=1)
    lost = take(ledger)
    assert ledger.release(lost, "node failure")
    assert not ledger.finish(lost, TrialState.COMPLETE, [1.0], {})
    assert study.trials[0].state == TrialState.FAIL


def test_finished_budget_gives_nothing(ledger: SingleRequestLedger) -> None:
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE):
        assert ledger.finish(take(ledger), state, [1.0] if state == TrialState.COMPLETE else None, {})
    assert ledger.claim(0, "cpu") is NoTrial.DONE
    assert ledger.counts().finished == 3


def test_failed_trials_do_not_count(ledger: SingleRequestLedger) -> None:
    for _ in range(5):
        assert ledger.finish(take(ledger), TrialState.FAIL, None, {"cause": "exception"})
    assert take(ledger).number == 5


def test_released_trial_goes_on_under_its_number(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    claim = take(ledger)
    trial = optuna.trial.Trial(study, claim.trial_id)
    value = trial.suggest_float("x", 0, 1)
    trial.report(0.5, step=3)
    assert ledger.release(claim, "walltime", seconds=7.0)
    again = take(ledger)
    assert (again.number, again.attempt) == (claim.number, 2)
    frozen = study.trials[claim.number]
    assert frozen.params == {"x": value}
    assert frozen.intermediate_values == {3: 0.5}


def test_lost_claim_cannot_finish_or_release(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    lost = take(ledger)
    ledger.release(lost, "walltime")
    kept = take(ledger)
    assert not ledger.finish(lost, TrialState.COMPLETE, [1.0], {})
    assert not ledger.release(lost, "walltime")
    assert ledger.finish(kept, TrialState.COMPLETE, [2.0], {})
    assert study.trials[kept.number].value == 2.0


def test_repeated_finish_and_claim_change_nothing(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    claim = ledger.claim(0, "cpu", token="t")
    assert ledger.claim(0, "cpu", token="t") == claim
    assert isinstance(claim, Claim)
    assert ledger.finish(claim, TrialState.COMPLETE, [1.0], {})
    assert ledger.finish(claim, TrialState.COMPLETE, [1.0], {})
    assert len(study.trials) == 1


def test_pruned_trial_keeps_its_last_report_as_value(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    claim = take(ledger)
    trial = optuna.trial.Trial(study, claim.trial_id)
    trial.report(0.5, step=0)
    trial.report(0.25, step=1)
    ledger.finish(claim, TrialState.PRUNED, None, {})
    assert study.trials[0].value == 0.25


def test_reap_frees_only_the_trials_of_dead_agents(study: optuna.Study, paths: StudyPaths) -> None:
    with Lease(paths.leases, Holder("living"), GRACE):
        living = SingleRequestLedger(study, paths, 5, "living", Registry(paths.leases, GRACE))
        dead = SingleRequestLedger(study, paths, 5, "dead", Registry(paths.leases, GRACE))
        kept, lost = take(living), take(dead)
        assert living.reap() == [lost.number]
        assert study.trials[kept.number].state == TrialState.RUNNING
        assert study.trials[lost.number].state == TrialState.WAITING
        assert take(living).number == lost.number


def test_trials_of_others_are_left_alone(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    foreign = study.ask()
    assert ledger.reap() == []
    assert study.trials[foreign.number].state == TrialState.RUNNING
    assert [take(ledger).number for _ in range(3)] == [1, 2, 3]


def test_enqueued_trials_come_first(ledger: SingleRequestLedger, study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.25})
    trial = optuna.trial.Trial(study, take(ledger).trial_id)
    assert trial.suggest_float("x", 0, 1) == 0.25


def take_ahead(ledger: SingleRequestLedger) -> Claim:
    claim = ledger.claim()
    assert isinstance(claim, Claim)
    return claim


def beginning_of(claim: Claim) -> Beginning:
    return Beginning(claim, 3, "gpu 3", 1.0, since=1000.0)


def begin(ledger: SingleRequestLedger, claim: Claim) -> bool:
    return ledger.process(LedgerBatch(beginnings=[beginning_of(claim)])).begun[claim.token]


@pytest.fixture
def large(study: optuna.Study, paths: StudyPaths) -> SingleRequestLedger:
    return SingleRequestLedger(study, paths, 5, "here", Registry(paths.leases, GRACE))


def test_claims_ahead_count_and_leave_what_other_agents_can_run(
    large: SingleRequestLedger, study: optuna.Study, paths: StudyPaths
) -> None:
    elsewhere = SingleRequestLedger(study, paths, 5, "elsewhere", Registry(paths.leases, GRACE))
    take(elsewhere)
    take_ahead(large)
    take_ahead(large)
    take_ahead(large)
    assert large.claim() is NoTrial.WAIT
    counts = large.counts()
    assert (counts.running, counts.ready, large.left(counts)) == (1, 3, 1)
    take(elsewhere)
    assert elsewhere.claim(0, "cpu") is NoTrial.SOON


def test_an_agent_that_is_alone_claims_all_that_is_left_ahead(large: SingleRequestLedger) -> None:
    running = [take(large), take(large)]
    ready = [take_ahead(large) for _ in range(3)]
    assert large.claim() is NoTrial.WAIT
    assert [claim.number for claim in (*running, *ready)] == [0, 1, 2, 3, 4]


def test_trials_that_wait_are_claimed_ahead_too(large: SingleRequestLedger, study: optuna.Study) -> None:
    for _ in range(5):
        study.enqueue_trial({})
    take(large)
    assert [take_ahead(large).number for _ in range(4)] == [1, 2, 3, 4]


def test_claim_ahead_that_never_begins_leaves_no_trace(large: SingleRequestLedger, study: optuna.Study) -> None:
    interrupted = take(large)
    large.release(interrupted, "walltime", seconds=7.0)
    again = take_ahead(large)
    assert (again.number, again.attempt) == (interrupted.number, 2)
    assert large.release(again, None)
    assert not large.release(again, None)
    assert (take(large).attempt, study.trials[0].system_attrs["aimlhpo:released"]["attempts"]) == (2, 1)


def test_claim_ahead_begins(large: SingleRequestLedger, study: optuna.Study) -> None:
    claim = take_ahead(large)
    assert begin(large, claim)
    assert large.counts().running == 1
    assert begin(large, claim), "a repeated batch must not take the trial for lost"
    assert study.trials[0].system_attrs[CLAIM]["since"] == 1000.0
    assert large.finish(claim, TrialState.COMPLETE, [1.0], {})


def test_beginning_of_a_lost_claim_leaves_it_to_its_new_owner(study: optuna.Study, paths: StudyPaths) -> None:
    with Lease(paths.leases, Holder("living"), GRACE):
        living = SingleRequestLedger(study, paths, 5, "living", Registry(paths.leases, GRACE))
        silent = SingleRequestLedger(study, paths, 5, "silent", Registry(paths.leases, GRACE))
        lost = take_ahead(silent)
        assert living.reap() == [lost.number]
        assert not begin(silent, lost)
        kept = take(living)
        assert kept.number == lost.number
        assert not begin(silent, lost)
        assert study.trials[0].system_attrs[CLAIM]["agent"] == "living"
        assert living.finish(kept, TrialState.COMPLETE, [2.0], {})
        assert not begin(silent, lost)
        assert not silent.finish(lost, TrialState.COMPLETE, [1.0], {})
    assert study.trials[0].value == 2.0


def test_trial_begins_and_ends_in_one_batch(large: SingleRequestLedger, study: optuna.Study) -> None:
    claim = take_ahead(large)
    result = Result("here", claim.trial_id, claim.number, claim.token, "COMPLETE", [1.0], {}, [])
    answer = large.process(LedgerBatch([result], beginnings=[beginning_of(claim)]))
    assert (answer.begun, answer.finished) == ({claim.token: True}, {claim.token: True})
    assert study.trials[0].system_attrs[CLAIM]["slot"] == 3


def test_reaped_claim_ahead_counts_no_attempt(study: optuna.Study, paths: StudyPaths) -> None:
    with Lease(paths.leases, Holder("living"), GRACE):
        living = SingleRequestLedger(study, paths, 5, "living", Registry(paths.leases, GRACE))
        dead = SingleRequestLedger(study, paths, 5, "dead", Registry(paths.leases, GRACE))
        begun, ready = take(dead), take_ahead(dead)
        assert living.reap() == [begun.number, ready.number]
        assert [take(living).attempt for _ in range(2)] == [2, 1]


def test_failures_in_a_row_end_the_study_for_every_agent(study: optuna.Study, paths: StudyPaths) -> None:
    latest_ends = partial(backend_of(study._storage).latest_ends, study._study_id)

    def started(seconds_ago: float) -> tuple[SingleRequestLedger, SingleRequestLedger]:
        """Two agents of a study that was started that long ago."""
        set_study_attribute(study, STUDY_ATTR, {"started": time.time() - seconds_ago})
        here, there = (
            SingleRequestLedger(
                study, paths, 50, agent, Registry(paths.leases, GRACE),
                stopping_criteria=StoppingCriteria(study, [ConsecutiveFailures(3, latest_ends)]),
            )
            for agent in ("here", "there")
        )  # fmt: skip
        return here, there

    here, there = started(10.0)
    late = take(there)
    for _ in range(2):
        assert here.finish(take(here), TrialState.FAIL, None, {})
    last, ahead = take(here), here.claim()
    answer = here.process(LedgerBatch([result_of(last)], claim_requests=[ClaimRequest("next", 0, "cpu", since=1.0)]))
    assert answer.claims["next"] is NoTrial.STOPPED
    assert str(answer.ended) == "max_consecutive_failures: 3 trials in a row have failed"
    assert there.finish(late, TrialState.COMPLETE, [1.0], {})  # what ends later changes nothing
    assert there.claim(0, "cpu") is NoTrial.STOPPED
    assert there.look()[1] == here.look()[1] == answer.ended
    assert isinstance(ahead, Claim)
    # Started again, the study goes on.
    again, _ = started(-5.0)
    assert again.look()[1] is None
    take(again)


def result_of(claim: Claim) -> Result:
    return Result("here", claim.trial_id, claim.number, claim.token, "FAIL", None, {}, [])


def test_no_paused_trial_is_promoted_where_a_lowered_budget_has_no_room(study: optuna.Study, paths: StudyPaths) -> None:
    study.pruner = ASHA(max_resource=9, mode="promotion")
    registry, promotion = Registry(paths.leases, GRACE), Promotion.of(study, 0)
    before = SingleRequestLedger(study, paths, 6, "here", registry, promotion=promotion)
    fresh = [take(before) for _ in range(6)]
    for claim in fresh:
        assert before.finish(claim, TrialState.WAITING, None, {"rung": 1, "seconds": 1.0}, [(0, claim.number)])
    best = take(before)
    assert best.number == 0  # two of the six may go on

    lowered = SingleRequestLedger(study, paths, 1, "here", registry, promotion=promotion)
    assert lowered.claim(0, "cpu") is NoTrial.WAIT
    assert lowered.finish(best, TrialState.COMPLETE, [0.0], {})
    assert lowered.claim(0, "cpu") is NoTrial.DONE
    assert lowered.counts().finished == 1
