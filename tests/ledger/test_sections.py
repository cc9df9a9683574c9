"""Trials that run in jobs of several sections: what each has cost where, in its record and in what is made of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from aimlhpo import open_study
from aimlhpo.config.schema import Config
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.ledger import CurrentConfig
from aimlhpo.ledger.requests import Claim
from aimlhpo.results.figures import HoursFigure
from aimlhpo.results.page import write_report
from aimlhpo.results.report import StudyReport, read_report
from aimlhpo.results.table import write_results
from aimlhpo.search.stopping import GpuHours, StoppingCriteria, make_rules
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.base import CLAIM, RELEASED, backend_of
from tests.ledgers import SingleRequestLedger
from tests.project import Project
from tests.results.test_page import packed

HOUR = 3600.0
SECTIONS = [
    {"gpu_weight": 2.0, "batch": {"partition": "a100"}},
    {"gpu_weight": 0.5, "batch": {"partition": "v100"}},
]


class Sections:
    """A study, and a ledger for an agent in each section and for one on the user's machine."""

    def __init__(self, folder: Path, slurm: Any = SECTIONS, **optuna_keys: Any) -> None:
        keys = {"storage": "journal", "n_trials": 4, "gpu": True, **optuna_keys}
        self.config = Project(folder, slurm=slurm, **keys).config
        self.study = begin_study(self.config)
        self.config.write_snapshot()
        self.config.paths.create()

    def ledger(self, section: str | None, agent: str = "", **settings: Any) -> SingleRequestLedger:
        config = self.config if section is None else self.config.in_section(section)
        registry = Registry(config.paths.leases, 60.0)
        current = CurrentConfig(config)
        return SingleRequestLedger(
            self.study, config.paths, 4, agent or str(section), registry, current=current, **settings
        )

    def trial(self, number: int = 0) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def claim(ledger: SingleRequestLedger, gpus: float = 2.0) -> Claim:
    claim = ledger.claim(0, "gpu 0", gpus=gpus)
    assert isinstance(claim, Claim)
    return claim


def record(claim: Claim, seconds: float, gpus: float = 2.0) -> dict[str, Any]:
    """What an agent keeps with a trial, of the attempt under this claim and those before."""
    gpu_seconds = claim.gpu_seconds_before + seconds * gpus
    return {"seconds": claim.seconds_before + seconds, "gpu_seconds": gpu_seconds, "attempts": claim.attempt}


def spent(**hours: float) -> dict[str, dict[str, float]]:
    return {name: {"seconds": HOUR * value, "gpu_seconds": 2 * HOUR * value} for name, value in hours.items()}


@pytest.fixture
def moved(tmp_path: Path) -> Sections:
    """Trial 0 took 1 hour on an A100 and 3 on a V100, each with two GPUs, and trial 1 half an hour on a V100."""
    sections = Sections(tmp_path)
    a100, v100 = sections.ledger("a100"), sections.ledger("v100")
    assert a100.release(claim(a100), "walltime", HOUR)
    first = claim(v100)
    assert v100.finish(first, TrialState.COMPLETE, [1.0], record(first, 3 * HOUR))
    second = claim(v100)
    assert v100.finish(second, TrialState.COMPLETE, [2.0], record(second, HOUR / 2))
    return sections


def test_a_record_has_the_section_that_it_ended_in_and_what_it_took_in_each(moved: Sections) -> None:
    first, second = record_of(moved.trial(0)), record_of(moved.trial(1))
    assert (first["section"], first["by_section"]) == ("v100", spent(a100=1, v100=3))
    assert (second["section"], second["by_section"]) == ("v100", spent(v100=0.5))


def bars_of(report: StudyReport) -> list[tuple[str, float, str]]:
    return HoursFigure("hours", "cost", "", "", report.hours).bars()


def test_results_csv_and_the_report_tell_the_sections_apart(moved: Sections) -> None:
    write_results(moved.study, moved.config)
    rows = list(csv.DictReader(moved.config.paths.results.open()))
    assert [(row["number"], row["section"]) for row in rows] == [("0", "v100"), ("1", "v100")]
    report = read_report(moved.study, moved.config)
    assert {name: hours.spent for name, hours in report.hours.by_section.items()} == {"a100": 2.0, "v100": 7.0}
    assert report.hours.spent == 9.0
    assert [(label, hours) for label, hours, _ in bars_of(report)] == [
        ("a100: complete", 2.0), ("v100: complete", 7.0),
    ]  # fmt: skip
    assert [row.section for row in report.rows] == ["v100", "v100"]
    page = write_report(moved.study, moved.config, moved.config.paths.report).read_text()
    for section, spent_there in (("a100", 2), ("v100", 7)):
        assert f'<td>of which {section}</td><td class="number">{spent_there}</td>' in page
    assert "of which in no section" not in page
    table = json.loads(packed(page, "data"))["table"]
    assert [row[table["columns"].index("section")] for row in table["rows"]] == ["v100", "v100"]
    assert [span.worker.split()[0] for span in report.spans] == ["v100", "v100"]
    assert list(open_study(moved.config.paths.save_path).trials["section"]) == ["v100", "v100"]


def test_gpu_hours_are_counted_with_the_weights_of_their_sections(moved: Sections) -> None:
    # 2 hours on A100s count 4, 7 hours on V100s count 3.5.
    assert ended(moved, 7.4) == "7.5 of 7.4 GPU hours, by gpu_weight, are used"
    assert ended(moved, 7.5) == "7.5 of 7.5 GPU hours, by gpu_weight, are used"
    assert ended(moved, 7.6) is None


def ended(sections: Sections, hours: float) -> str | None:
    """What the rule says of the study as it is."""
    optuna_section = sections.config.optuna.model_copy(update={"max_gpu_hours": hours})
    config = Config(**{**vars(sections.config), "optuna": optuna_section})
    rules = [rule for rule in make_rules(sections.study, config) if isinstance(rule, GpuHours)]
    overview = backend_of(sections.study._storage).overview(sections.study._study_id)
    reason = StoppingCriteria(sections.study, rules).ended(overview)
    return None if reason is None else reason.reason


def test_what_runs_and_what_waits_is_counted_where_it_was(tmp_path: Path) -> None:
    sections = Sections(tmp_path)
    a100, v100 = sections.ledger("a100"), sections.ledger("v100")
    assert a100.release(claim(a100), "walltime", HOUR)
    claim(v100)
    trial = sections.trial()
    assert trial.system_attrs[CLAIM]["section"] == "v100"
    assert trial.system_attrs[RELEASED]["by_section"] == spent(a100=1)
    hours = read_report(sections.study, sections.config).hours
    assert list(hours.by_section) == ["a100", "v100"]
    assert (hours.unit, hours.by_section["a100"].by_end) == ("worker-hours", {"RUNNING": 1.0})  # nothing has ended


def test_a_trial_that_pauses_keeps_what_it_took_in_each(tmp_path: Path) -> None:
    sections = Sections(tmp_path)
    v100 = sections.ledger("v100")
    first = claim(v100)
    assert v100.finish(first, TrialState.WAITING, None, {**record(first, HOUR), "rung": 1}, [(0, 1.0)])
    assert sections.trial().system_attrs[RELEASED]["by_section"] == spent(v100=1)
    assert read_report(sections.study, sections.config).hours.by_section["v100"].by_end == {"PAUSED": 2.0}


def test_a_trial_that_is_interrupted_too_often_says_where(tmp_path: Path) -> None:
    sections = Sections(tmp_path)
    v100 = sections.ledger("v100", max_interruptions=1)
    assert v100.release(claim(v100), "preempted", HOUR)
    failed = record_of(sections.trial())
    assert (sections.trial().state, failed["section"]) == (TrialState.FAIL, "v100")
    assert failed["by_section"] == spent(v100=1)


def test_trials_on_the_users_machine_are_of_no_section_and_count_as_the_first(tmp_path: Path) -> None:
    sections = Sections(tmp_path)
    here, v100 = sections.ledger(None, "here"), sections.ledger("v100")
    assert here.release(claim(here), "stopped by user", HOUR)
    first = claim(v100)
    assert v100.finish(first, TrialState.COMPLETE, [1.0], record(first, HOUR))
    second = claim(here)
    assert here.finish(second, TrialState.COMPLETE, [1.0], record(second, HOUR))
    assert record_of(sections.trial(0))["by_section"] == spent(v100=1)
    assert "section" not in record_of(sections.trial(1))
    hours = read_report(sections.study, sections.config).hours
    assert {name: part.spent for name, part in hours.by_section.items()} == {"v100": 2.0, "in no section": 4.0}
    assert ended(sections, 9.0) == "9 of 9 GPU hours, by gpu_weight, are used"


@pytest.mark.parametrize("slurm", [None, SECTIONS[0], SECTIONS[:1]], ids=["none", "a mapping", "a list of one"])
def test_a_study_of_one_section_is_as_it_always_was(tmp_path: Path, slurm: Any) -> None:
    sections = Sections(tmp_path, slurm)
    ledger = sections.ledger(None, "a")
    assert ledger.release(claim(ledger), "walltime", HOUR)
    first = claim(ledger)
    assert ledger.finish(first, TrialState.COMPLETE, [1.0], record(first, HOUR))
    known = {
        **sections.trial().system_attrs[CLAIM],
        **sections.trial().system_attrs[RELEASED],
        **record_of(sections.trial()),
    }
    assert not {"section", "by_section"} & known.keys()
    write_results(sections.study, sections.config)
    assert "section" not in sections.config.paths.results.read_text().splitlines()[0].split(",")
    report = read_report(sections.study, sections.config)
    assert report.hours.by_section == {}
    assert [label for label, _, _ in bars_of(report)] == ["complete"]
