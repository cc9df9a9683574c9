"""What a pruner's keys may hold beyond arguments of its class: paths into the model YAML, and a metric."""

from __future__ import annotations

import pytest

from tests.files import Files

MODEL = """
    trainer: {epochs: 27, warmup: 1, rate: 0.5, name: adam, on: true}
    loss: [0, 9]
"""


def write(files: Files, *lines: str) -> Files:
    return files.write("\n".join(lines), model=MODEL)


def test_a_resource_is_read_from_the_model_by_its_path(files: Files) -> None:
    write(files, "pruner: {type: HyperbandPruner, min_resource: trainer:warmup, max_resource: trainer:epochs}")
    pruner = files.load().optuna.pruner
    assert pruner is not None
    assert pruner.arguments == {"min_resource": 1, "max_resource": 27}
    changed = files.load("trainer:epochs=81").optuna.pruner
    assert changed is not None
    assert changed.arguments["max_resource"] == 81


def test_the_resource_of_a_wrapped_pruner_and_one_in_a_list(files: Files) -> None:
    write(
        files,
        "pruner:",
        "  {type: PatientPruner, patience: 2, wrapped_pruner: {type: SuccessiveHalvingPruner, min_resource: loss:1}}",
    )
    pruner = files.load().optuna.pruner
    assert pruner is not None
    assert pruner.arguments["wrapped_pruner"]["min_resource"] == 9


def test_auto_stays_what_it_means_to_optuna(files: Files) -> None:
    pruner = write(files, "pruner: {type: HyperbandPruner, max_resource: auto}").load().optuna.pruner
    assert pruner is not None
    assert pruner.arguments == {"max_resource": "auto"}


@pytest.mark.parametrize(
    ("path", "found", "suggestion"),
    [
        ("trainer:epoch", "'trainer:epoch' is not in the model YAML", "trainer:epochs"),
        ("trainer:name", "trainer:name is 'adam' in the model YAML", None),
        ("trainer:rate", "trainer:rate is 0.5 in the model YAML", None),
        ("trainer:on", "trainer:on is true in the model YAML", None),
        ("trainer", "trainer is {", None),
        ("loss:0", "loss:0 is 0 in the model YAML", None),
    ],
)
def test_a_path_that_leads_to_no_resource(path: str, found: str, suggestion: str | None, files: Files) -> None:
    problems = write(files, f"pruner: {{type: HyperbandPruner, max_resource: '{path}'}}").problems()
    assert list(problems) == ["optuna: pruner: max_resource"]
    problem = problems["optuna: pruner: max_resource"]
    assert problem.found.startswith(found)
    assert problem.suggestion == suggestion


def test_a_resource_that_is_searched_differs_from_trial_to_trial(files: Files) -> None:
    problems = write(
        files,
        "pruner: {type: HyperbandPruner, max_resource: trainer:epochs}",
        "parameters: {'trainer:epochs': {type: int, settings: {low: 2, high: 9}}}",
    ).problems()
    assert "is searched" in problems["optuna: pruner: max_resource"].found


def test_other_mistakes_in_the_pruner_are_told_with_it(files: Files) -> None:
    problems = write(files, "pruner: {type: HyperbandPruner, max_resource: nowhere, reduction: 2}").problems()
    assert set(problems) == {"optuna: pruner: max_resource", "optuna: pruner: reduction"}


def test_the_metric_that_several_are_pruned_by(files: Files) -> None:
    several = "metric: [val_loss, seconds]"
    named = write(files, several, "pruner: {type: MedianPruner, metric: seconds}").load().optuna
    assert named.reported_metric == 1
    assert named.pruner is not None
    assert named.pruner.arguments == {}
    assert write(files, several).load().optuna.reported_metric is None
    assert write(files).load().optuna.reported_metric == 0


@pytest.mark.parametrize(
    ("pruner", "found", "suggestion"),
    [
        ("{type: MedianPruner}", "is missing, and the study has 2 metrics", None),
        ("MedianPruner", "is missing, and the study has 2 metrics", None),
        ("{type: MedianPruner, metric: val_los}", "'val_los' is no metric of the study", "val_loss"),
        ("{type: MedianPruner, metric: []}", "[] is not text", None),
    ],
)
def test_a_pruner_without_its_metric(pruner: str, found: str, suggestion: str | None, files: Files) -> None:
    problem = write(files, "metric: [val_loss, seconds]", f"pruner: {pruner}").problems()["optuna: pruner: metric"]
    assert problem.found == found
    assert problem.suggestion == suggestion


def test_several_metrics_without_pruning(files: Files) -> None:
    assert write(files, "metric: [val_loss, seconds]", "pruner: NopPruner").load().optuna.reported_metric is None


ASHA = "type: ASHA, max_resource: trainer:epochs"
SAVES = "def train(trial): trial.checkpoint_dir"


def test_asha_by_promotion(files: Files) -> None:
    files.objective.write_text(SAVES)
    write(files, f"pruner: {{{ASHA}, mode: promotion}}").load("optuna:n_trials=27")


@pytest.mark.parametrize(
    ("pruner", "where", "found"),
    [
        ("type: ASHA, brackets: 2", "max_resource", "is missing, and brackets 2 needs it"),
        ("type: auto, patience: 3", "patience", "auto takes no arguments"),
        (f"{ASHA}, mode: promote", "mode", "'promote' is no mode of ASHA"),
        (f"{ASHA}, reduction_factor: 1", "reduction_factor", "1 is too small"),
        (f"{ASHA}, min_resource: 30", "max_resource", "27 is not more than min_resource, 30"),
        (f"{ASHA}, brackets: 9", "brackets", "9 is not possible"),
        (f"{ASHA}, brackets: two", "brackets", "'two' does not fit"),
        (f"{ASHA}, mode: promotion", "mode", "saves no checkpoint, so a promoted trial would begin anew"),
        (
            f"type: PatientPruner, patience: 2, wrapped_pruner: {{{ASHA}, mode: promotion}}",
            "wrapped_pruner: mode",
            "promotion is no decision to prune, which another pruner could wrap",
        ),
    ],
)
def test_what_is_wrong_with_asha(pruner: str, where: str, found: str, files: Files) -> None:
    problems = write(files, f"pruner: {{{pruner}}}").problems(["optuna:n_trials=27"])
    assert list(problems) == [f"optuna: pruner: {where}"]
    assert problems[f"optuna: pruner: {where}"].found.endswith(found)


def test_too_few_trials_to_promote_one_to_the_end(files: Files) -> None:
    files.objective.write_text(SAVES)
    found = write(files, f"pruner: {{{ASHA}, mode: promotion}}").problems(["optuna:n_trials=26"])
    problem = next(problem for where, problem in found.items() if where.startswith("optuna: n_trials"))
    assert problem.found == "26 trials cannot fill the rungs at 1, 3, 9: none would be promoted to the end"
    assert problem.legal is not None
    assert problem.legal.startswith("27 or more")
