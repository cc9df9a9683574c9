"""An agent that others may have taken for dead goes on only with the claims that it still holds."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from optuna.trial import Trial

from aimlhpo.agent.agent import make_ledger, open_study
from aimlhpo.agent.trial_store import TrialStore
from aimlhpo.config.load import with_values
from aimlhpo.config.schema import Config
from aimlhpo.ledger.changes import BUDGET, change_study, current_config
from aimlhpo.ledger.leases import Holder, Lease
from aimlhpo.ledger.ledger import CurrentConfig, Ledger
from aimlhpo.ledger.requests import Beginning, Claim, ClaimRequest, LedgerBatch, NoTrial, Release, Result
from aimlhpo.objective.messages import Report, SuggestRequest
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.base import CLAIM, new_token
from aimlhpo.storage.retry import RetryPolicy
from tests.project import Project

GRACE = 600


def retry_policy() -> RetryPolicy:
    return RetryPolicy(lambda line: None, lambda: 60.0)


def ledger_of(config: Config, holder: Holder) -> Ledger:
    study, _ = open_study(config, retry_policy())
    return make_ledger(CurrentConfig(config), study, holder, lambda other: None)


@dataclass
class Agent:
    """What an agent stores its trials with; another agent's ledger is beside it."""

    store: TrialStore
    ledger: Ledger
    lease: Lease
    other: Ledger
    project: Project

    def claim_ahead(self) -> Claim:
        (claim,) = self.store.process([ClaimRequest(new_token())]).answer.claims.values()
        assert isinstance(claim, Claim)
        return claim

    def lose(self, claim: Claim) -> Claim:
        """Have the other take this agent for dead, and its trial; the agent knows nothing of it yet."""
        os.utime(self.lease.path, (0.0, 0.0))
        assert self.other.reap() == [claim.number]
        request = ClaimRequest(new_token(), 0, "cpu", since=time.time())
        (taken,) = self.other.process(LedgerBatch(claim_requests=[request])).claims.values()
        assert isinstance(taken, Claim)
        assert taken.number == claim.number
        return taken

    def may_go_on(self, claim: Claim) -> bool:
        """Whether a trial that reports is told to go on."""
        done = self.store.process([Report(claim.number, 1, 0.5)])
        return not done.decisions[0].prune


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    project = Project(tmp_path, storage=f"journal:///{tmp_path}/s.journal", grace_period=GRACE)
    config, holder = project.config, Holder("silent")
    begin_study(config)
    config.write_snapshot()
    study, storage = open_study(config, retry_policy())
    current = CurrentConfig(config)
    ledger = make_ledger(current, study, holder, lambda other: None)
    with Lease(config.paths.leases, holder, GRACE) as lease:
        store = TrialStore(current, study, storage, ledger, lease)
        yield Agent(store, ledger, lease, ledger_of(config, Holder("other")), project)


def let_first_confirmation_fail(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storage be away the first time that the agent asks which claims it still holds."""
    confirm, asked = agent.ledger.confirm, []

    def confirm_at_the_second_time(claims: Sequence[Claim]) -> list[Claim]:
        asked.append(claims)
        if len(asked) == 1:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return confirm(claims)

    monkeypatch.setattr(agent.ledger, "confirm", confirm_at_the_second_time)


def test_claims_are_confirmed_in_spite_of_an_outage_meanwhile(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = agent.claim_ahead()
    agent.lease._renewed -= GRACE + 1
    agent.lose(claim)
    let_first_confirmation_fail(agent, monkeypatch)
    assert not retry_policy().run(partial(agent.may_go_on, claim))
    assert agent.lease.valid()
    assert agent.project.study().trials[claim.number].intermediate_values == {}


def test_lease_that_is_removed_while_claims_are_confirmed_is_made_again(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = agent.claim_ahead()
    agent.lease._renewed -= GRACE + 1
    confirm, removed = agent.ledger.confirm, []

    def confirm_after_a_sweep(claims: Sequence[Claim]) -> list[Claim]:
        if not removed:
            removed.append(agent.lease.path)
            agent.lease.path.unlink()
        return confirm(claims)

    monkeypatch.setattr(agent.ledger, "confirm", confirm_after_a_sweep)
    assert agent.may_go_on(claim)
    assert agent.lease.valid()
    assert agent.other.reap() == []


def test_trial_that_others_have_taken_cannot_begin_and_is_told_to_stop(agent: Agent) -> None:
    claim = agent.claim_ahead()
    taken = agent.lose(claim)
    agent.store.process([Beginning(claim, 0, "cpu", 0.0, since=1000.0)])
    assert agent.project.study().trials[claim.number].system_attrs[CLAIM]["token"] == taken.token
    assert not agent.may_go_on(claim)


def test_trial_that_begins_goes_on(agent: Agent) -> None:
    claim = agent.claim_ahead()
    agent.store.process([Beginning(claim, 0, "cpu", 0.0, since=1000.0)])
    assert agent.project.study().trials[claim.number].system_attrs[CLAIM]["since"] == 1000.0
    assert agent.may_go_on(claim)


def test_trial_that_comes_back_has_the_values_that_others_have_suggested_meanwhile(agent: Agent) -> None:
    def suggest(name: str) -> object:
        request = SuggestRequest(claim.number, "suggest_int", {"name": name, "low": 0, "high": 10**9})
        answer, _ = agent.store.answer(request)
        assert answer.error is None
        return answer.value

    claim = agent.claim_ahead()
    mine = suggest("mine")
    taken = agent.lose(claim)
    theirs = Trial(agent.project.study(), taken.trial_id).suggest_int("theirs", 0, 10**9)
    agent.other.process(LedgerBatch(releases=[Release(taken, "walltime", 1.0)]))

    agent.lease._renewed -= GRACE + 1
    assert agent.claim_ahead().number == claim.number
    assert suggest("mine") == mine
    assert suggest("theirs") == theirs


# --- a budget that is changed while trials run ---


def change_budget(agent: Agent, n_trials: int) -> list[int]:
    """What `aimlhpo change` does, from another process; the numbers of the trials that are given back."""
    study = agent.project.study()
    before = current_config(study, agent.project.config)
    _, given_back = change_study(study, with_values(before, {BUDGET: n_trials}), {BUDGET: n_trials})
    return given_back


def answer_to_claim(agent: Agent, *others: Result) -> Claim | NoTrial:
    """The answer to a claim for a free slot, which comes together with results."""
    request = ClaimRequest(new_token(), 0, "cpu", since=time.time())
    return agent.store.process([*others, request]).answer.claims[request.token]


def begin(agent: Agent, n_trials: int) -> list[Claim]:
    claims = [answer_to_claim(agent) for _ in range(n_trials)]
    return [claim for claim in claims if isinstance(claim, Claim)]


def failed(claim: Claim) -> Result:
    record = {"cause": "exception: ValueError", "seconds": 1.0}
    return Result("silent", claim.trial_id, claim.number, claim.token, "FAIL", None, record, [])


def test_a_trial_that_was_given_back_ends_before_it_runs_here_again(agent: Agent) -> None:
    first, *_, last = begin(agent, 3)
    assert change_budget(agent, 3) == []
    assert change_budget(agent, 2) == [last.number]
    assert answer_to_claim(agent, failed(first)) is NoTrial.SOON  # the slot asks again soon
    done = agent.store.process([])
    assert done.lost == agent.store.snapshot().lost == {last.token}
    again = answer_to_claim(agent)
    assert isinstance(again, Claim)
    assert again.number == last.number
    assert again.token != last.token


def test_a_budget_that_was_smaller_for_a_moment_takes_its_claims_all_the_same(agent: Agent) -> None:
    *_, last = begin(agent, 3)
    agent.store.snapshot()
    budget = agent.project.config.optuna.n_trials
    assert change_budget(agent, 2) == [last.number]
    assert change_budget(agent, budget) == []
    assert agent.store.snapshot().lost == {last.token}
    again = answer_to_claim(agent)
    assert isinstance(again, Claim)
    assert again.number == last.number


def test_claims_are_given_again_after_an_outage_right_after_a_change(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(agent, 2)
    change_budget(agent, 5)
    assert answer_to_claim(agent) is NoTrial.SOON
    let_first_confirmation_fail(agent, monkeypatch)
    assert isinstance(retry_policy().run(partial(answer_to_claim, agent)), Claim)
