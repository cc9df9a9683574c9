"""`slurm` as a list of sections: their names, their keys on the command line, and what is told of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from aimlhpo.config.load import differences, load_snapshot, with_values
from aimlhpo.errors import ConfigError
from aimlhpo.ledger.changes import refuse_unchangeable

if TYPE_CHECKING:
    from tests.files import Files

LIST = """
slurm:
  - jobs: 2
    gpu_weight: 2.5
    batch: {p: a100, t: 12:00:00}
  - name: old
    jobs: 3
    trials_per_gpu: 2
    batch: {partition: v100}
  - batch: {gres: "gpu:1"}
"""


def test_each_section_has_its_name_its_jobs_and_its_options(files: Files) -> None:
    config = files.write(above=LIST).load()
    assert [(each.name, each.jobs) for each in config.sections] == [("a100", 2), ("old", 3), ("2", 1)]
    assert config.sections[0].batch == {"partition": "a100", "time": "12:00:00"}
    assert [each.gpu_weight for each in config.sections] == [2.5, 1.0, 1.0]
    assert [each.section for each in config.by_section()] == ["a100", "old", "2"]
    old = config.in_section("old")
    assert old.slurm is config.sections[1]
    assert [each.section for each in old.by_section()] == ["old"]


def test_a_mapping_is_one_section_that_needs_no_name(files: Files) -> None:
    config = files.write(above="slurm: {jobs: 4, batch: {p: a100}}").load()
    assert [(each.name, each.jobs) for each in config.sections] == [(None, 4)]
    assert config.by_section() == [config] == [config.in_section(None)]
    assert config.section is None


def test_without_the_name_of_a_section_a_run_goes_by_the_first(files: Files) -> None:
    config = files.write(above=LIST).load()
    assert config.slurm is config.sections[0]
    assert config.section is None


@pytest.mark.parametrize("section", ["slurm:old", "slurm:1", "slurm.old"])
def test_the_command_line_names_a_section_or_its_position(files: Files, section: str) -> None:
    sign = section[5]
    given = [f"{section}{sign}jobs=9", f"{section}{sign}batch{sign}p=h100", f"{section}{sign}batch{sign}time=1:00:00"]
    config = files.write(above=LIST).load(*given)
    assert [each.jobs for each in config.sections] == [2, 9, 1]
    assert config.sections[1].batch == {"partition": "h100", "time": "1:00:00"}
    assert config.sections[1].name == "old"


def test_several_jobs_in_all_share_a_journal_where_no_storage_is_named(files: Files) -> None:
    each = "slurm: [{batch: {p: a}}, {batch: {p: b}}]"
    assert files.write(above=each).load().optuna.storage.startswith("journal://")


@pytest.mark.parametrize(
    ("above", "where", "found"),
    [
        ("slurm: []", "slurm", "is an empty list"),
        ("slurm: [5]", "slurm: 0", "5 is not a mapping"),
        ("slurm: [{batch: {p: a}}, {jobs: none, batch: {p: b}}]", "slurm: b: jobs", "'none' is not a whole number"),
        ("slurm: [{batch: {p: a}}, {job: 3, batch: {p: b}}]", "slurm: b: job", "unknown key"),
        ("slurm: [{batch: {p: a, tim: 3}}]", "slurm: a: batch: tim", "sbatch has no such option"),
        ("slurm: [{batch: {p: a}}, {batch: {p: a}}]", "slurm: a", "2 sections have this name"),
        ("slurm: [{name: 'a b'}]", "slurm: a b: name", "'a b' begins with a dash, or holds a blank"),
        ("slurm: [{name: -a}]", "slurm: -a: name", "'-a' begins with a dash"),
        ("slurm: [{batch: {p: [a, b]}, jobs: none}]", "slurm: 0: jobs", "'none' is not a whole number"),
        ("slurm: [{batch: {p: 'a b'}, jobs: none}]", "slurm: 0: jobs", "'none' is not a whole number"),
        ("slurm: [{batch: {p: -a}, jobs: none}]", "slurm: 0: jobs", "'none' is not a whole number"),
        ("slurm: [{gpu_weight: 0}]", "slurm: 0: gpu_weight", "0 is too small"),
    ],
)
def test_a_mistake_is_told_with_the_section_that_has_it(files: Files, above: str, where: str, found: str) -> None:
    problems = files.write(above=above).problems()
    assert list(problems) == [where]
    assert problems[where].found.startswith(found)


def test_a_section_that_is_not_there_is_told_with_those_that_are(files: Files) -> None:
    (problem,) = files.write(above=LIST).problems(["slurm:h100:jobs=3"]).values()
    assert problem.where == "slurm: h100 (from slurm:h100:jobs=3)"
    assert problem.legal == "slurm:NAME:key=value, with one of a100, old, 2"
    for next_one in ("slurm:3:jobs=3", "slurm:3={jobs: 3}"):  # a list of three has 0, 1 and 2
        assert list(files.write(above=LIST).problems([next_one])) == [f"slurm: 3 (from {next_one})"]
    (problem,) = files.write(above=LIST).problems(["slurm:jobs=3"]).values()
    assert problem.found == "slurm is a list, and has no such section"
    (problem,) = files.write(above=LIST).problems(["slurm:1:jobs=none"]).values()
    assert problem.where == "slurm: old: jobs (from slurm:1:jobs=none)"
    with pytest.raises(ConfigError, match="no section 'h100'\n    legal: a100, old, 2"):
        files.write(above=LIST).load().in_section("h100")


def test_what_differs_is_told_by_section_and_can_be_changed(files: Files) -> None:
    before = files.write(above=LIST).load()
    after = files.load("slurm:old:jobs=7", "slurm:a100:keep=true")
    assert differences(before, after) == {"slurm:a100:keep": True, "slurm:old:jobs": 7}
    refuse_unchangeable(before, after, "")
    changed = with_values(before.in_section("old"), {"slurm:old:jobs": 7, "slurm:a100:keep": True})
    assert changed.sections == after.sections
    assert changed.slurm is changed.sections[1]  # a job stays in its section
    with pytest.raises(ConfigError, match="slurm: old: batch: cannot be changed"):
        refuse_unchangeable(before, files.load("slurm:old:batch:p=h100"), "")


def test_changes_of_a_section_that_the_files_have_no_more_are_left_out(files: Files) -> None:
    one = files.write(above="slurm: {jobs: 4}").load()
    several = files.write(above=LIST).load()
    assert with_values(one, {"slurm:old:jobs": 7}) == one
    assert with_values(several, {"slurm:jobs": 7, "slurm:h100:keep": True}) == several
    assert differences(one, several) == {"slurm": several.hyperparameters["slurm"]}


def test_the_copy_beside_a_study_has_the_names(files: Files, tmp_path: Path) -> None:
    config = files.write(f"save_path: {tmp_path / 'run'}", above=LIST).load()
    config.write_snapshot()
    assert load_snapshot(config.paths).sections == config.sections
    # Another partition at a later time makes no other section of it.
    text = yaml.safe_load(config.paths.hyperparameters.read_text())
    assert [each["name"] for each in text["slurm"]] == ["a100", "old", "2"]
