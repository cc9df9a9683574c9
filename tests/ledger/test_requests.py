"""A finished result outlives the agent that had it."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.leases import Holder, Lease, Registry
from aimlhpo.ledger.requests import Claim, Outbox, Result
from aimlhpo.storage.open import open_storage
from tests.ledgers import SingleRequestLedger


def setting(folder: Path, url: str | None = None) -> tuple[optuna.Study, StudyPaths, Registry]:
    paths = StudyPaths(folder, "s")
    paths.create()
    study = optuna.create_study(study_name="s", storage=open_storage(url or f"journal://{folder}/s.journal"))
    return study, paths, Registry(paths.leases, 60.0)


def leave_behind(study: optuna.Study, paths: StudyPaths, registry: Registry) -> Claim:
    """What an agent leaves that was killed between a trial's end and its writing."""
    claim = SingleRequestLedger(study, paths, 1, "dead", registry).claim(0, "cpu")
    assert isinstance(claim, Claim)
    reports = [(0, 2.0), (1, float("nan"))]
    ended = Result("dead", claim.trial_id, claim.number, claim.token, "COMPLETE", [0.5], {"cause": None}, reports)
    Outbox(paths.outbox).put(ended)
    return claim


def test_result_of_a_dead_agent_is_delivered_before_its_trial_is_reaped(tmp_path: Path) -> None:
    study, paths, registry = setting(tmp_path)
    leave_behind(study, paths, registry)
    assert SingleRequestLedger(study, paths, 1, "next", registry).reap() == []
    trial = study.trials[0]
    assert (trial.state, trial.value, sorted(trial.intermediate_values)) == (TrialState.COMPLETE, 0.5, [0, 1])
    assert list(paths.outbox.iterdir()) == []


def test_result_of_a_living_agent_is_left_to_it(tmp_path: Path) -> None:
    study, paths, registry = setting(tmp_path)
    with Lease(paths.leases, Holder("dead"), 60.0):
        leave_behind(study, paths, registry)
        SingleRequestLedger(study, paths, 1, "next", registry).reap()
        assert study.trials[0].state == TrialState.RUNNING
        assert len(list(paths.outbox.iterdir())) == 1


def test_result_whose_claim_was_lost_is_dropped(tmp_path: Path) -> None:
    study, paths, registry = setting(tmp_path)
    claim = leave_behind(study, paths, registry)
    ledger = SingleRequestLedger(study, paths, 1, "next", registry)
    ledger.release(claim, "walltime")
    taken = ledger.claim(0, "cpu")
    assert isinstance(taken, Claim)
    ledger.reap()
    assert study.trials[0].state == TrialState.RUNNING
    assert ledger.finish(taken, TrialState.COMPLETE, [0.25], {})
    assert study.trials[0].value == 0.25


def test_outbox_files_are_private(tmp_path: Path) -> None:
    study, paths, registry = setting(tmp_path)
    leave_behind(study, paths, registry)
    assert [path.stat().st_mode & 0o777 for path in paths.outbox.iterdir()] == [0o600]


@pytest.mark.parametrize("text", ["", '{"agent": "dead", "tri', "[]", '{"agent": "dead"}'])
def test_file_that_the_machine_cut_off_costs_one_result_and_stops_nobody(tmp_path: Path, text: str) -> None:
    study, paths, registry = setting(tmp_path)
    claim = leave_behind(study, paths, registry)
    (paths.outbox / f"{claim.token}.json").write_text(text)
    assert SingleRequestLedger(study, paths, 1, "next", registry).reap() == [claim.number]
    assert study.trials[0].state == TrialState.WAITING
    assert [path.name for path in paths.outbox.iterdir()] == [f"{claim.token}.broken"]


def test_result_that_the_storage_refuses_stops_nobody(
    tmp_path: Path, postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    study, paths, registry = setting(tmp_path, postgresql_url)
    claim = leave_behind(study, paths, registry)
    file = paths.outbox / f"{claim.token}.json"
    file.write_text(file.read_text().replace("[[0, 2.0]", f"[[{2**40}, 2.0]"))
    assert SingleRequestLedger(study, paths, 1, "next", registry).reap() == [claim.number]
    assert study.trials[0].state == TrialState.WAITING
    assert f"{claim.token}.broken" in caplog.text
