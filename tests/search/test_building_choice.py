"""What a study is searched with that names no sampler and no pruner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from aimlhpo.check.check import summarize
from aimlhpo.cli.main import main
from aimlhpo.search.building import CHOSEN, choose, strategies
from aimlhpo.search.rung_samplers import RungGPSampler
from aimlhpo.search.rungs import ASHA
from aimlhpo.search.sampling import use_strategies
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import study_attributes
from tests.project import Project

AUTO = {"sampler": "auto", "pruner": "auto"}
ONLY_WIDE = {"type": "optimize_iff", "on": "kind", "conditions": [{"type": "equal", "compare_value": "wide"}]}
CONDITIONAL = {
    "kind": {"type": "categorical", "settings": {"choices": ["plain", "wide"]}},
    "model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}, "dependency": ONLY_WIDE},
}
TWO = {"metric": ["val_loss", "x_seen"], "direction": ["minimize", "minimize"]}


def types(chosen: dict[str, dict[str, Any]]) -> tuple[str, str]:
    return chosen["sampler"]["type"], chosen["pruner"]["type"]


@pytest.mark.parametrize(
    ("keys", "sampler", "pruner"),
    [
        (AUTO, "RungGPSampler", "ASHA"),
        ({**AUTO, "sampler": None, "pruner": None}, "RungGPSampler", "ASHA"),
        ({**AUTO, "sampler": "RandomSampler"}, "TPESampler", "MedianPruner"),
        ({**AUTO, "constraints": "x_seen < 0.5"}, "TPESampler", "MedianPruner"),
        ({**AUTO, **TWO}, "TPESampler", "NopPruner"),
        ({**AUTO, **TWO, "pruner": {"type": "auto", "metric": "val_loss"}}, "TPESampler", "MedianPruner"),
    ],
)
def test_what_is_chosen(keys: dict[str, Any], sampler: str, pruner: str, tmp_path: Path) -> None:
    assert types(choose(Project(tmp_path, **keys).config)) == (sampler, pruner)


@pytest.mark.parametrize(("n_trials", "factor", "share"), [(50, 2, "half"), (51, 3, "third")])
def test_more_trials_go_on_in_a_small_study(n_trials: int, factor: int, share: str, tmp_path: Path) -> None:
    config = Project(tmp_path, **AUTO, n_trials=n_trials).config
    study = begin_study(config)
    use_strategies(study, config)
    assert isinstance(study.pruner, ASHA)
    assert study.pruner.ladder.reduction_factor == factor
    assert f"the best {share} goes on" in str(strategies(config, study))


def test_conditional_parameters_are_sampled_in_groups(tmp_path: Path) -> None:
    chosen = choose(Project(tmp_path, **AUTO, parameters=CONDITIONAL).config)
    assert chosen["sampler"] == {"type": "RungSampler", "group": True}


def test_the_choice_is_kept_in_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Project(tmp_path, **AUTO).config
    study = begin_study(config)
    monkeypatch.setattr("aimlhpo.search.building.choose", lambda config: {})
    chosen = strategies(config, study)
    assert (chosen.sampler.type, chosen.pruner.type) == ("RungGPSampler", "ASHA")
    use_strategies(study, config)
    assert type(study.sampler) is RungGPSampler
    assert isinstance(study.pruner, ASHA)


def test_a_study_of_an_earlier_version_goes_on_with_what_it_had(tmp_path: Path) -> None:
    project = Project(tmp_path, **AUTO)
    attributes = study_attributes(begin_study(project.config))
    earlier = optuna.create_study()
    for key in attributes.keys() - {CHOSEN}:
        earlier.set_user_attr(key, attributes[key])
    use_strategies(earlier, project.config)
    assert str(earlier.sampler) == "TPESampler"
    assert isinstance(earlier.pruner, optuna.pruners.MedianPruner)


def test_an_explicit_class_means_what_it_says(tmp_path: Path) -> None:
    config = Project(tmp_path, sampler="TPESampler", pruner="MedianPruner").config
    study = begin_study(config)
    use_strategies(study, config)
    assert str(study.sampler) == "TPESampler"
    assert isinstance(study.pruner, optuna.pruners.MedianPruner)
    assert strategies(config, study).automatic == ()


def test_the_choice_is_told_before_during_and_after_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, **AUTO, n_trials=3)
    rows = dict(summarize(project.config))
    assert rows["sampler"].startswith("auto: RungGPSampler")
    assert rows["pruner"].startswith("auto: ASHA")
    files = [str(project.hyperparameters), str(project.model)]
    main(["optimize", *files, "--show", "sampler"])
    told = capsys.readouterr().out
    assert told.startswith("sampler: auto: RungGPSampler")
    assert "enough" in told
    assert main(["optimize", *files, "--local", "1"]) == 0
    assert capsys.readouterr().out.startswith("sampler auto: RungGPSampler")
    assert main(["status", str(project.save_path)]) == 0
    assert "search   sampler auto: RungGPSampler" in capsys.readouterr().out


def test_one_worker_repeats_itself_with_a_seed(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        project = Project(tmp_path / name, **AUTO, n_trials=16, seed=3, pruning="strict", storage="journal")
        assert main(["optimize", str(project.hyperparameters), str(project.model), "--local", "1"]) == 0
        drawn.append([(trial.params, trial.state) for trial in project.study().trials])
    assert drawn[0] == drawn[1]
