"""What the command line changes, and how its mistakes are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.files import Files

LR = """
    parameters:
      optimizer:learning_rate: {type: loguniform, settings: {name: lr, low: 1e-5, high: 1e-1}}
    enqueue: [{lr: 0.01}]
    sampler: {type: TPESampler}
"""


def test_any_key_of_the_hyperparameters(files: Files, tmp_path: Any) -> None:
    config = files.write(LR, above="log: true").load(
        "optuna:n_trials=7",
        "optuna:sampler:n_startup_trials=3",
        "optuna:parameters:optimizer:learning_rate:settings:low=1e-4",
        "optuna:parameters:layers:0:units={type: int, settings: {low: 1, high: 3}}",
        "optuna:enqueue:0:lr=0.02",
        "optuna:seed=0",
        "log:save_path=out",
        "slurm:jobs=4",
        "slurm:batch:t=00:10:00",
        "slurm:bash=[module load a, module load b]",
    )
    study = config.optuna
    assert (study.n_trials, study.seed) == (7, 0)
    assert study.sampler is not None
    assert study.sampler.arguments == {"n_startup_trials": 3}
    assert study.parameters["optimizer:learning_rate"].settings["low"] == 1e-4
    assert study.parameters["layers:0:units"].name == "layers:0:units"
    assert study.enqueue == [{"lr": 0.02}]
    assert study.save_path == str(tmp_path / "out")
    assert config.slurm is not None
    assert (config.slurm.jobs, config.slurm.batch, len(config.slurm.bash)) == (4, {"time": "00:10:00"}, 2)


def test_a_new_parameter_can_be_built_key_by_key(files: Files) -> None:
    config = files.load(
        "optuna:parameters:layers:1:units:type=int",
        "optuna:parameters:layers:1:units:settings:low=1",
        "optuna:parameters:layers:1:units:settings:high=9",
    )
    assert config.space.by_key["layers:1:units"].settings["high"] == 9


def test_any_path_of_the_model(files: Files) -> None:
    config = files.load("optimizer:learning_rate=1e-2", "layers:1:units=[1, 2]", "epochs=12:00:00")
    assert config.model["optimizer"]["learning_rate"] == 0.01
    assert config.model["layers"][1]["units"] == [1, 2]
    assert config.model["epochs"] == "12:00:00"


def test_values_may_hold_an_equals_sign(files: Files) -> None:
    assert files.load("slurm:batch:export=A=1,B=2").slurm.batch == {"export": "A=1,B=2"}  # type: ignore[union-attr]


def test_a_later_override_wins_and_a_flag_wins_over_all(files: Files) -> None:
    assert files.load("optuna:n_trials=5", "optuna:n_trials=6").optuna.n_trials == 6
    assert files.load("optuna:n_trials=5", flags={"n_trials": "9"}).optuna.n_trials == 9


def test_one_name_of_a_key_replaces_the_other(files: Files) -> None:
    config = files.write(above="slurm: {batch: {t: 1, J: a}}").load("slurm:batch:time=2", "optuna:study_name=new")
    assert config.slurm is not None
    assert config.slurm.batch == {"job-name": "a", "time": "2"}
    assert config.optuna.study_name == "new"


def test_flags(files: Files, tmp_path: Any) -> None:
    (tmp_path / "other.py").write_text("")
    flags = {
        "name": "12", "reload": "1", "objective": "other.py", "direction": "maximize,minimize", "metric": "acc, loss",
        "n_trials": "3", "gpu": "true", "save_path": "out", "storage": None,
    }  # fmt: skip
    study = files.load(flags=flags).optuna
    assert (study.study_name, study.reload, study.objective) == ("12", True, str(tmp_path / "other.py"))
    assert (study.direction, study.metric) == (["maximize", "minimize"], ["acc", "loss"])
    assert (study.n_trials, study.gpu, study.save_path) == (3, True, str(tmp_path / "out"))
    assert study.storage == f"sqlite:///{tmp_path}/out/12.db"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optuna:n_trails=5", "did you mean: n_trials"),
        ("optuna:n_trials=abc", "optuna: n_trials (from optuna:n_trials=abc): 'abc' is not a whole number"),
        ("optuna:n_trials:x=5", "holds a single value"),
        ("optuna:n_trials=[1", "line 1"),
        ("optuna:enqueue:7:lr=1", "not a position"),
        ("optimizer:learning_rat=1", "did you mean: optimizer:learning_rate"),
        ("optunaa:n_trials=1", "did you mean: optuna:n_trials"),
        ("nothing:like=it", "not in the model YAML"),
        ("n_trials", "is not an override"),
        ("=5", "is not an override"),
        ("optuna:sampler:type=!!python/name:os.system", "!!python/name:os.system"),
        ("optuna=5", "not a mapping"),
        ("slurm:batch:tim=5", "did you mean: time"),
    ],
)
def test_mistakes(files: Files, override: str, words: str) -> None:
    text = "\n".join(map(str, files.write(LR).problems([override]).values()))
    assert words in text


def test_all_mistakes_of_the_command_line_and_the_files_at_once(files: Files) -> None:
    found = files.write("seed: x").problems(["optimizer:lr=1", "optuna:a=1"], {"n_trials": "no number"})
    assert set(found) == {
        "model: optimizer:lr", "optuna: seed", "optuna: a (from optuna:a=1)",
        "optuna: n_trials (from --n-trials no number)",
    }  # fmt: skip
