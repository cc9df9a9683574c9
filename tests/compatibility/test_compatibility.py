"""Studies that an earlier version has begun: today's tells of them what that one told, and brings them to their end.

How they were made stands in make_studies.py. They are read with plain Optuna here, and run with the command.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.cli.main import main
from aimlhpo.storage.attributes import RECORD
from tests.compatibility.make_studies import DATA, ROOT, STUDIES

FILES = ("hyperparameters.yml", "model.yml")
TAKEN, RETRY = "aimlhpo:taken", "aimlhpo:retry"


class Stored:
    """The study of an archive, unpacked into a directory of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.save_path = folder, folder / "run"
        self.made_in = ROOT / name
        with tarfile.open(DATA / f"{name}.tar.gz") as archive:
            archive.extraction_filter = getattr(tarfile, "tar_filter", None)  # which Debian 12's Python 3.11.2 lacks
            archive.extractall(folder)
        for file in folder.glob("*/.aimlhpo/config/*.yml"):  # the only files that are found by an absolute path
            file.write_text(file.read_text().replace(str(self.made_in), str(folder)))
        self.told: dict[str, Any] = json.loads((folder / "status.json").read_text())

    def load(self) -> optuna.Study:
        return optuna.load_study(study_name=self.told["study"], storage=self._storage())

    def _storage(self) -> str | BaseStorage:
        file = next(path for path in self.folder.rglob("*") if path.suffix in (".db", ".journal"))
        return f"sqlite:///{file}" if file.suffix == ".db" else JournalStorage(JournalFileBackend(str(file)))

    def trials(self) -> list[FrozenTrial]:
        return self.load().get_trials()

    def evidence(self) -> list[dict[str, Any]]:
        """What the objective noted while it trained, with the old version and since."""
        return [json.loads(line) for line in (self.folder / "evidence.jsonl").read_text().splitlines()]

    def results(self) -> dict[str, str]:
        """The texts of results.csv, best.yml and, with several metrics, those of the front."""
        return {path.name: path.read_text() for path in self.save_path.glob("*.*") if path.suffix in (".csv", ".yml")}

    def left_by_agents(self) -> list[Path]:
        """Leases of the dead, and results that were not delivered."""
        return [*self.save_path.glob(".aimlhpo/leases/*.json"), *self.save_path.glob(".aimlhpo/outbox/*")]


Unpack = Callable[[str], Stored]


@pytest.fixture
def unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    """Unpacks a study, and makes its directory the current one."""

    def unpacked(name: str) -> Stored:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("STUDIES", str(tmp_path))
        return Stored(name, tmp_path)

    return unpacked


def optimize(*arguments: str) -> None:
    """Go on with the study of the current directory, on two workers, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "aimlhpo", "optimize", *arguments, "--local", "2"],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert "has changed" not in done.stderr  # the objective is known by the hash that the old version kept


def go_on(study: Stored, *overrides: str) -> list[FrozenTrial]:
    """Go on to the end of the budget; holds what is true of every study, and gives its trials."""
    before, evidence, results = study.trials(), study.evidence(), study.results()
    optimize(*FILES, "-r", "1", *overrides)
    after = study.trials()
    hold_that_the_budget_is_exact(study, after)
    hold_that_what_was_stored_stays(before, after)
    hold_that_nothing_is_trained_twice(before, evidence, study.evidence())
    hold_that_results_only_grow(study, results["results.csv"])
    assert main(["optimize", *FILES, "-r", "1"]) == 3  # nothing to do
    assert study.trials() == after
    return after


def hold_that_the_budget_is_exact(study: Stored, after: list[FrozenTrial]) -> None:
    budget = yaml.safe_load((study.folder / FILES[0]).read_text())["optuna"].get("n_trials", study.told["n_trials"])
    finished = [trial for trial in after if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert sum(TAKEN not in trial.system_attrs for trial in finished) == budget
    assert not [trial.number for trial in after if trial.state == TrialState.RUNNING]


def hold_that_what_was_stored_stays(before: list[FrozenTrial], after: list[FrozenTrial]) -> None:
    """Finished trials in every part; parameters, reports and attributes of the others."""
    for old, new in zip(before, after, strict=False):
        if old.state.is_finished():
            assert new == old
        assert old.params.items() <= new.params.items()
        assert old.intermediate_values.items() <= new.intermediate_values.items()
        assert old.user_attrs.keys() <= new.user_attrs.keys()


def hold_that_nothing_is_trained_twice(
    before: list[FrozenTrial], evidence: list[dict[str, Any]], all_evidence: list[dict[str, Any]]
) -> None:
    """Finished trials do not begin again; others do with the next attempt, at the step where they were."""
    since = all_evidence[len(evidence) :]
    assert not {line["trial"] for line in since} & {trial.number for trial in before if trial.state.is_finished()}
    for number in {line["trial"] for line in all_evidence}:
        mine = [line for line in all_evidence if line["trial"] == number]
        attempts = [line["attempt"] for line in mine if line["event"] == "begin"]
        assert attempts == sorted(attempts)
        assert set(attempts) == set(range(1, attempts[-1] + 1))
        steps = [line["step"] for line in mine if line["event"] == "step"]
        assert steps == list(range(len(steps)))


def hold_that_results_only_grow(study: Stored, table: str) -> None:
    """The old rows and columns stay; best.yml is of the best trial, as Optuna sees it."""
    results, loaded = study.results(), study.load()
    before, rows = (list(csv.DictReader(io.StringIO(text))) for text in (table, results["results.csv"]))
    added = rows[0].keys() - before[0].keys()
    assert added <= {"peak_memory_mb", "peak_gpu_memory_mb"}  # earlier versions did not know these
    assert [name for name in rows[0] if name not in added] == list(before[0])
    assert all({**row, **dict.fromkeys(added, "")} in rows for row in before)
    assert len(rows) == sum(trial.state.is_finished() for trial in loaded.get_trials())
    best = min(loaded.best_trials, key=lambda trial: trial.number)
    assert f"# trial: {best.number}" in results["best.yml"].splitlines()[1]


def begin_of(study: Stored, number: int) -> dict[str, Any]:
    """How the last attempt at a trial began."""
    return [line for line in study.evidence() if line["trial"] == number and line["event"] == "begin"][-1]


# --- reading ---


def as_before(told: Any, before: Any) -> Any:
    """What is told now, without the keys of mappings that were not told before."""
    if isinstance(told, dict) and isinstance(before, dict):
        return {key: as_before(told.get(key), value) for key, value in before.items()}
    if isinstance(told, list) and isinstance(before, list) and len(told) == len(before):
        return [as_before(*pair) for pair in zip(told, before, strict=True)]
    return told


@pytest.mark.parametrize("name", STUDIES)
def test_status_tells_what_it_told_before(name: str, unpack: Unpack, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of dead agents: it delivers the results they left, and gives their trials back."""
    study = unpack(name)
    assert main(["status", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.replace(str(study.folder), str(study.made_in)))
    assert as_before(told, study.told) == study.told
    assert study.left_by_agents() == []


def test_what_was_chosen_and_what_has_ended_a_study_is_told(unpack: Unpack, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the last version that kept records, and what it noted of a study, in user attributes."""
    study = unpack("automatic")
    assert RECORD not in study.trials()[0].system_attrs
    assert study.load().user_attrs["aimlhpo:ended"]["rule"] == "target_value"
    assert main(["optimize", *FILES, "-r", "1"]) == 3
    said = capsys.readouterr().out
    assert study.told["ended"]["reason"] in said
    assert "RungTPESampler" in said


@pytest.mark.parametrize("name", STUDIES)
def test_result_files_are_rebuilt_as_they_were(name: str, unpack: Unpack) -> None:
    study = unpack(name)
    written = study.results()
    assert {"results.csv", "best.yml"} <= written.keys()
    for file in written:
        (study.save_path / file).unlink()
    assert main(["results", "run"]) == 0
    assert study.results() == written


def test_the_snapshot_beside_a_journal_is_used(unpack: Unpack) -> None:
    """One that is not of use is written anew, as the journal has more than 4 MB."""
    (snapshot,) = unpack("journal").save_path.glob("*.snapshot")
    before = snapshot.stat()
    assert main(["status", "run"]) == 0
    assert (snapshot.stat().st_ino, snapshot.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_journal_without_its_snapshot_tells_the_same(unpack: Unpack) -> None:
    study = unpack("journal")
    written = study.results()
    next(study.save_path.glob("*.snapshot")).unlink()
    assert main(["results", "run"]) == 0
    assert study.results() == written


def test_another_search_space_is_refused(unpack: Unpack, capsys: pytest.CaptureFixture[str]) -> None:
    """The same one is taken to be the same: every study here goes on."""
    unpack("sqlite")
    assert main(["optimize", *FILES, "-r", "1", "optuna:parameters:x:settings:high=2.0"]) == 2
    assert "optuna: parameters: x" in capsys.readouterr().err


def test_a_changed_objective_is_told(unpack: Unpack, capsys: pytest.CaptureFixture[str]) -> None:
    """By the hash that the old version has kept; an unchanged one is never told."""
    study = unpack("sqlite")
    with open(study.folder / "objective.py", "a") as file:
        file.write("# another text\n")
    assert main(["optimize", *FILES, "-r", "1", "--create-only"]) == 0
    assert "objective.py has changed" in capsys.readouterr().err


# --- going on ---


def test_a_study_with_every_kind_of_parameter_goes_on(unpack: Unpack) -> None:
    study = unpack("sqlite")
    (interrupted,) = study.told["interrupted"]
    number = interrupted["number"]
    reports = sorted(study.trials()[number].intermediate_values)
    trials = go_on(study)
    began = begin_of(study, number)
    assert (began["attempt"], began["reports"], began["attributes"]) == (2, reports, ["begun", "note"])
    assert trials[number].user_attrs["begun"] == {"attempt": 2, "steps": [0, 4]}
    assert trials[number].state.is_finished()


def test_a_journal_goes_on_with_its_retries_and_checkpoints(unpack: Unpack) -> None:
    study = unpack("journal")
    before = study.trials()
    trials = go_on(study)
    (number,) = (trial["number"] for trial in study.told["interrupted"])
    assert begin_of(study, number)["attempt"] == 2
    (retry,) = [trial for trial in before if trial.state == TrialState.WAITING and RETRY in trial.system_attrs]
    failed = trials[retry.system_attrs[RETRY]["of"]]
    assert [trial.number for trial in trials if trial.params == failed.params] == [failed.number, retry.number]
    assert trials[retry.number].state == TrialState.FAIL  # and max_retries is 1
    kept = {path.name for path in (study.save_path / "checkpoints").iterdir()}
    assert kept == {f"trial-{study.load().best_trial.number:05d}"}


def test_what_a_killed_agent_left_is_delivered_or_goes_on(unpack: Unpack) -> None:
    study = unpack("killed")
    before = study.trials()
    left = [json.loads(path.read_text()) for path in study.save_path.glob(".aimlhpo/outbox/*.json")]
    running = {trial.number for trial in before if trial.state == TrialState.RUNNING}
    trials = go_on(study)
    assert left
    for result in left:
        trial = trials[result["number"]]
        assert (trial.state, trial.values) == (TrialState.COMPLETE, result["values"])
        assert [list(report) for report in sorted(trial.intermediate_values.items())] == result["reports"]
    for interrupted in study.told["interrupted"]:
        began = begin_of(study, interrupted["number"])
        assert (began["attempt"], began["reports"]) == (2, sorted(before[began["trial"]].intermediate_values))
    unbegun = running - {result["number"] for result in left} - {each["number"] for each in study.told["interrupted"]}
    assert unbegun
    assert all(begin_of(study, number)["attempt"] == 1 for number in unbegun)
    assert study.left_by_agents() == []


def test_a_grid_completes_each_combination_once(unpack: Unpack) -> None:
    """Also one that has failed before; the values that were drawn at its first start stay, whatever the seed."""
    study = unpack("grid")
    before = study.trials()
    trials = go_on(study, "optuna:seed=5")
    complete = Counter(json.dumps(trial.params) for trial in trials if trial.state == TrialState.COMPLETE)
    assert len(complete) == 2 * 3 * (2 + 1)
    assert set(complete.values()) == {1}
    assert {json.dumps(trial.params) for trial in before if trial.state == TrialState.FAIL} <= complete.keys()


def test_paused_trials_are_promoted_as_if_nothing_had_been_between(unpack: Unpack) -> None:
    """The trials get worse with their numbers: 9 of 27 come to the second rung, and 3 of these to the end."""
    study = unpack("asha")
    before = {trial.number: len(trial.intermediate_values) for trial in study.trials()}
    trials = go_on(study)
    trained = [len(trial.intermediate_values) for trial in trials]
    assert trained == 3 * [9] + 6 * [3] + 18 * [1]
    assert [trial.state for trial in trials] == 3 * [TrialState.COMPLETE] + 24 * [TrialState.PRUNED]
    assert [number for number in range(9) if 0 < before[number] < trained[number]]  # so some were paused


def test_a_study_with_several_metrics_and_constraints_goes_on(unpack: Unpack) -> None:
    study = unpack("pareto")
    trials = go_on(study)
    front = {f"best-{trial.number}.yml" for trial in study.load().best_trials}
    assert {name for name in study.results() if name.startswith("best-")} == front
    assert all(len(trial.constraints) == 2 for trial in trials if trial.state == TrialState.COMPLETE)


def test_a_study_with_its_records_in_user_attributes_goes_on(
    unpack: Unpack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its target: with the sampler and the pruner that were chosen, and new records out of sight."""
    study = unpack("automatic")
    before = study.trials()
    trials = go_on(study, "optuna:target_value=null")
    assert {trial.state for trial in trials[len(before) :]} <= {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        assert ("aimlhpo" in trial.user_attrs) == (trial.number < len(before)) == (RECORD not in trial.system_attrs)
    capsys.readouterr()
    assert main(["status", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["search"] == study.told["search"]
    assert [failed["number"] for failed in told["failed"]] == [2]


def test_a_study_that_took_trials_over_does_so_once(unpack: Unpack) -> None:
    study = unpack("warm-start")
    (account,) = study.told["taken_over"]
    trials = go_on(study)
    assert sum(TAKEN in trial.system_attrs for trial in trials) == account["taken"]


def test_a_new_study_takes_over_the_trials_of_an_old_one(unpack: Unpack, capsys: pytest.CaptureFixture[str]) -> None:
    study = unpack("warm-start")
    source = optuna.load_study(study_name="source", storage=f"sqlite:///{study.folder}/studies.db").get_trials()
    new = yaml.safe_load((study.folder / "source.yml").read_text())
    new["optuna"] |= {"name": "new.db", "save_path": "new", "warm_start_from": "source", "n_trials": 3}
    del new["optuna"]["storage"]
    (study.folder / "new.yml").write_text(yaml.safe_dump(new))
    optimize("new.yml", "model.yml")
    assert main(["status", "new", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(account["study"], account["taken"], account["left"]) for account in told["taken_over"]] == [
        ("source", len(source), {})
    ]
    trials = optuna.load_study(study_name="new", storage=f"sqlite:///{study.folder}/new/new.db").get_trials()
    for old, taken in zip(source, trials, strict=False):
        assert (taken.values, taken.params, taken.intermediate_values) == (
            old.values, old.params, old.intermediate_values
        )  # fmt: skip
    assert sum(trial.state.is_finished() for trial in trials) == len(source) + 3
