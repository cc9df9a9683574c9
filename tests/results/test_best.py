"""The best trials: their order, and what each changed in the model YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from aimlhpo.cli.verbs.results import show_best
from aimlhpo.results.best import Change, changes, describe_best, ranking
from aimlhpo.storage.trials import read_record
from tests.results.test_results import add, begin


def described(tmp_path: Path, params: dict[str, Any] | None = None, **record: Any) -> list[Change]:
    study, config = begin(tmp_path)
    add(study, config, params, **record)
    return list(changes(read_record(study.trials[0], config.optuna.metric), config))


def test_what_a_trial_changed_stands_beside_the_models_own_values(tmp_path: Path) -> None:
    found = described(tmp_path, updates={"layers": [{"units": 16}], "schedule": "cosine"})
    assert found == [  # in the order of the file
        Change("layers:0:units", 8, 16),
        Change("optimizer:name", "sgd", "adam"),
        Change("optimizer:rate", 0.1, 0.25),
        Change("schedule", None, "cosine", added=True),
    ]


def test_values_that_are_the_models_own_and_parameters_without_a_place(tmp_path: Path) -> None:
    assert described(tmp_path, {"rate": 0.1, "opt": "sgd", "depth": 3.0}) == [Change("depth", None, 3.0, added=True)]


@pytest.mark.parametrize(("direction", "order"), [("minimize", [2, 0, 3]), ("maximize", [3, 0, 2])])
def test_the_ranking_has_complete_trials_alone_best_first(direction: str, order: list[int], tmp_path: Path) -> None:
    study, config = begin(tmp_path, direction=direction)
    for state, values in (("COMPLETE", [2.0]), ("PRUNED", [0.0]), ("COMPLETE", [1.0]), ("COMPLETE", [3.0])):
        add(study, config, state=TrialState[state], values=values)
    assert [trial.number for trial in ranking(study, 10)] == order
    assert [trial.number for trial in ranking(study, 1)] == order[:1]


def test_of_several_metrics_one_front_follows_the_other(tmp_path: Path) -> None:
    study, config = begin(tmp_path, metric=["a", "b"], direction=["minimize", "minimize"], pruner=None)
    for values in ([3.0, 3.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]):
        add(study, config, values=values)
    assert [trial.number for trial in ranking(study, 10)] == [1, 2, 3, 0]
    assert [trial.number for trial in describe_best(study, config)] == [1, 2]


def test_the_best_trial_is_compared_with_the_models_own_values(tmp_path: Path) -> None:
    study, config = begin(tmp_path, enqueue_default=True)
    add(study, config, {"rate": 0.1, "opt": "sgd"}, values=[0.5])
    assert describe_best(study, config)[0].default is not None
    text = "\n".join(show_best(describe_best(study, config), config))
    assert "no trial is better than the model YAML's own values" in text
    better = add(study, config, values=[0.4], metrics={"accuracy": 0.75})
    (best,) = describe_best(study, config)
    assert (best.number, best.default) == (better, (1, {"val_loss": 0.5}))
    text = "\n".join(show_best([best], config))
    assert "0.1 (20%) better than val_loss 0.5 of the model YAML's own (trial 1)" in text
    assert ["optimizer:rate", "0.1", "->", "0.25"] in [line.split() for line in text.splitlines()]
    assert "accuracy 0.75" in text


def test_trials_that_break_a_constraint_are_not_ranked(tmp_path: Path) -> None:
    study, _ = begin(tmp_path, constraints="val_loss > 1")
    for value in (0.5, 2.0):
        broken = {"constraints:val_loss > 1": 1.0 - value}
        study.add_trial(create_trial(values=[value], system_attrs=broken))
    assert [trial.number for trial in ranking(study, 10)] == [1]
