"""Which trials of another study a study takes over, and what it says of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.check.check import check
from aimlhpo.check.settings import load_config
from aimlhpo.errors import ConfigError
from aimlhpo.search.warm_start import ImportSummary, begin_study, import_summaries, summarize_import
from aimlhpo.storage.open import open_storage
from aimlhpo.storage.trials import is_own, origin
from tests.project import Project

X = {"model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}}}


def declared(**parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters by name, each as its type and settings."""
    return {
        name: {"type": given.pop("type"), "settings": given}
        for name, given in ((n, dict(p)) for n, p in parameters.items())
    }


def project(folder: Path, name: str, **keys: Any) -> Project:
    (folder / name).mkdir()
    return Project(folder / name, study_name=name, name=name, **keys)


def finished(made: Project, *params: dict[str, Any], **more: Any) -> optuna.Study:
    """The study of a project, with one finished trial for each."""
    config = made.config
    study = begin_study(config)
    config.write_snapshot()
    space = config.space
    for index, values in enumerate(params):
        study.enqueue_trial(space.encode(values))
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, float(index))
    return study


def imported(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if not is_own(trial)]


def test_values_states_and_reports_come_along(tmp_path: Path) -> None:
    before = project(tmp_path, "before", parameters=X)
    source = finished(before, {"x": 0.25})
    pruned = source.ask()
    pruned.suggest_float("x", 0.0, 1.0)
    pruned.report(3.0, 7)
    source.tell(pruned, state=TrialState.PRUNED)
    study = begin_study(project(tmp_path, "after", parameters=X, warm_start_from=str(before.save_path)).config)
    first, second = imported(study)
    assert (first.state, first.params, first.value) == (TrialState.COMPLETE, {"x": 0.25}, 0.0)
    assert (second.state, second.intermediate_values) == (TrialState.PRUNED, {7: 3.0})
    assert [trial.datetime_complete for trial in (first, second)] == [t.datetime_complete for t in source.trials]
    assert origin(second) == "taken over from trial 1 of before"


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    before = project(tmp_path, "before", parameters=X)
    source = finished(before, {"x": 0.25}, {"x": 0.75}, {"x": 0.9})
    source.tell(source.ask(), state=TrialState.FAIL)
    source.ask()
    narrow = {"model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 0.5}}}
    after = project(tmp_path, "after", parameters=narrow, warm_start_from=str(before.hyperparameters))
    study = begin_study(after.config)
    assert [trial.params for trial in imported(study)] == [{"x": 0.25}]
    assert imported(study)[0].distributions == {"x": FloatDistribution(0.0, 0.5)}
    (summary,) = import_summaries(study)
    assert summary.left == {"x is outside the search space": [1, 2], "failed": [3], "not finished": [4]}
    assert str(summary) == (
        "1 of 5 trials of study before taken over; not: 2 (x is outside the search space: trials 1, 2); "
        "1 (failed: trial 3); 1 (not finished: trial 4)"
    )


AB, CB = ({"type": "categorical", "choices": choices} for choices in (["a", "b"], ["c", "b"]))
LISTS, OTHERS = ({"type": "categorical", "choices": choices} for choices in ([[1, 2], [3]], [[3], [4]]))
SIZES, FEWER = ({"type": "ordinal", "choices": choices} for choices in ([8, 16, 32], [16, 64]))
KINDS: list[tuple[str, dict[str, Any], Any, dict[str, Any], bool]] = [
    ("wider range", {"type": "int", "low": 1, "high": 4}, 3, {"type": "int", "low": 0, "high": 9}, True),
    ("narrower range", {"type": "int", "low": 1, "high": 4}, 4, {"type": "int", "low": 1, "high": 3}, False),
    ("float to int", {"type": "float", "low": 0.0, "high": 4.0}, 2.5, {"type": "int", "low": 0, "high": 4}, False),
    ("a choice more", AB, "b", CB, True),
    ("a choice less", AB, "a", CB, False),
    ("lists", LISTS, [3], OTHERS, True),
    ("no lists", LISTS, [1, 2], OTHERS, False),
    ("ordinal", SIZES, 16, FEWER, True),
    ("no ordinal", SIZES, 8, FEWER, False),
    ("ordinal to int", SIZES, 16, {"type": "int", "low": 1, "high": 64}, True),
]


@pytest.mark.parametrize(("before", "value", "after", "fits"), [kind[1:] for kind in KINDS], ids=[k[0] for k in KINDS])
def test_the_value_decides_whatever_the_storage_makes_of_it(
    tmp_path: Path, before: dict[str, Any], value: Any, after: dict[str, Any], fits: bool
) -> None:
    source = project(tmp_path, "before", parameters=declared(p=before))
    finished(source, {"p": value})
    goal = project(tmp_path, "after", parameters=declared(p=after), warm_start_from=str(source.save_path))
    study = begin_study(goal.config)
    assert len(imported(study)) == fits
    if fits:
        assert goal.config.space.values(imported(study)[0].params) == {"p": value}


def test_conditional_parameters_are_needed_where_they_are_active(tmp_path: Path) -> None:
    space = {
        "kind": {"type": "categorical", "settings": {"choices": ["a", "b"]}},
        "only_a": {
            "type": "float",
            "settings": {"low": 0.0, "high": 1.0},
            "dependency": {
                "type": "optimize_iff", "on": "kind", "conditions": [{"type": "equal", "compare_value": "a"}],
            },
        },
    }  # fmt: skip
    before = project(tmp_path, "before", parameters=declared(kind={"type": "categorical", "choices": ["a", "b"]}))
    finished(before, {"kind": "a"}, {"kind": "b"})
    study = begin_study(project(tmp_path, "after", parameters=space, warm_start_from=str(before.save_path)).config)
    assert [trial.params for trial in imported(study)] == [{"kind": "b"}]
    assert import_summaries(study)[0].left == {"no value for only_a": [0]}


def test_a_parameter_that_is_no_longer_searched_keeps_its_trials_away(tmp_path: Path) -> None:
    both = {**X, "y": {"type": "float", "settings": {"low": 0.0, "high": 1.0}}}
    before = project(tmp_path, "before", parameters=both)
    finished(before, {"x": 0.5, "y": 0.5})
    study = begin_study(project(tmp_path, "after", parameters=X, warm_start_from=str(before.save_path)).config)
    assert import_summaries(study)[0].left == {"y is not searched here": [0]}


def test_what_the_objective_itself_suggests_goes_along(tmp_path: Path) -> None:
    before = project(tmp_path, "before", parameters=X)
    source = finished(before)
    trial = source.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_int("depth", 1, 4)
    source.tell(trial, 1.0)
    study = begin_study(project(tmp_path, "after", parameters=X, warm_start_from=str(before.save_path)).config)
    assert imported(study)[0].params.keys() == {"x", "depth"}


def test_the_trials_of_plain_optuna_are_taken_over_by_name(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/plain.journal"
    plain = optuna.create_study(study_name="plain", storage=open_storage(url))
    plain.optimize(lambda trial: trial.suggest_float("x", 0.0, 2.0), n_trials=12)
    fit = sum(trial.params["x"] <= 1.0 for trial in plain.trials)
    after = project(tmp_path, "after", parameters=X, warm_start_from={"study_name": "plain", "storage": url})
    assert summarize_import(after.config) == ImportSummary("plain", url, fit, {"x is outside the search space": [
        trial.number for trial in plain.trials if trial.params["x"] > 1.0
    ]})  # fmt: skip
    study = begin_study(after.config)
    assert len(imported(study)) == fit


def test_many_starts_take_each_trial_over_once(tmp_path: Path) -> None:
    before = project(tmp_path, "before", parameters=X)
    finished(before, {"x": 0.25}, {"x": 0.5})
    after = project(tmp_path, "after", parameters=X, warm_start_from=str(before.save_path), reload=1)
    study = begin_study(project_new(after))
    late = before.study().ask()  # it is done once
    late.suggest_float("x", 0.0, 1.0)
    before.study().tell(late, 1.0)
    for _ in range(2):
        begin_study(after.config)
    assert [trial.params["x"] for trial in imported(study)] == [0.25, 0.5]


def project_new(made: Project) -> Any:
    return load_config(made.hyperparameters, made.model, ["optuna:reload=0"])


def test_a_start_that_was_cut_off_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = project(tmp_path, "before", parameters=X)
    finished(before, {"x": 0.25}, {"x": 0.5}, {"x": 0.75})
    after = project(tmp_path, "after", parameters=X, warm_start_from=str(before.save_path), reload=1)
    storage = type(open_storage(after.config.optuna.storage))
    create, made = storage.create_new_trial, []

    def cut_off(self: Any, *arguments: Any, **named: Any) -> int:
        if len(made) == 2:
            raise OSError("cut off")
        made.append(create(self, *arguments, **named))
        return int(made[-1])

    with monkeypatch.context() as patched:
        patched.setattr(storage, "create_new_trial", cut_off)
        with pytest.raises(OSError, match="cut off"):
            begin_study(project_new(after))
    study = begin_study(after.config)
    assert [trial.params["x"] for trial in imported(study)] == [0.25, 0.5, 0.75]
    assert import_summaries(study)[0].taken == 3


def mistakes() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"warm_start_from": "nowhere"}, "no such file or directory"),
        ({"warm_start_from": "empty"}, "no study was started in"),
        ({"warm_start_from": {"study_name": "other"}}, "there is no storage"),
        ({"warm_start_from": {"study_name": "befor", "storage": "BEFORE"}}, "did you mean: before"),
        ({"warm_start_from": "before/run", "direction": "maximize"}, "is to minimize, and this one to maximize"),
        ({"warm_start_from": "before/run", "metric": "loss"}, "measures val_loss, and this one loss"),
        ({"warm_start_from": "before/run", "metric": ["a", "b"], "direction": ["minimize"] * 2, "pruner": None},
         "has 1 metrics, and this one has 2"),
        ({"warm_start_from": {"study_name": "x", "storage": "postgresql://me:secret@host/db"}}, "holds a password"),
    ]  # fmt: skip


@pytest.mark.parametrize(("keys", "told"), mistakes(), ids=[told for _, told in mistakes()])
def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], told: str) -> None:
    before = project(tmp_path, "before", parameters=X)
    finished(before)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    named = keys["warm_start_from"]
    if isinstance(named, dict) and named.get("storage") == "BEFORE":
        named["storage"] = before.config.optuna.storage
    problems = check(project(tmp_path, "after", **keys).config)
    assert [problem.where.split(": storage")[0] for problem in problems] == ["optuna: warm_start_from"]
    assert told in str(problems[0])
    assert "secret" not in str(problems[0])


def test_the_study_itself_is_no_other_study(tmp_path: Path) -> None:
    made = project(tmp_path, "before", parameters=X, warm_start_from={"study_name": "before"})
    assert "is the study itself" in str(check(made.config)[0])


@pytest.mark.parametrize(
    ("value", "where", "told"),
    [
        (5, "optuna: warm_start_from", "5 is not a study"),
        ({}, "optuna: warm_start_from", "names no study"),
        ({"study": "b"}, "optuna: warm_start_from: study", "did you mean: study_name"),
        ({"path": "a", "study_name": "b"}, "optuna: warm_start_from", "one of the two ways"),
        ({"study_name": "b", "storage": "studies"}, "optuna: warm_start_from: storage", "is not a storage"),
        ({"name": "b", "study_name": "b"}, "optuna: warm_start_from: name", "legal: path, study_name, storage"),
    ],
)
def test_malformed_sources_are_told(tmp_path: Path, value: Any, where: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        _ = project(tmp_path, "after", warm_start_from=value).config
    assert [problem.where for problem in raised.value.problems] == [where]
    assert told in str(raised.value)
