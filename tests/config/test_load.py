"""Two files become one Config, or one list of everything that is wrong with them."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aimlhpo.check.samplers import warnings_for
from aimlhpo.config.load import load_paths, load_snapshot
from aimlhpo.errors import ConfigError

if TYPE_CHECKING:
    from tests.files import Files

FULL = """
    metric: [val_loss, seconds]
    direction: [minimize, minimize]
    timeout: 3600
    gpu: 1
    reload: 0
    seed: 7
    sampler: {type: TPESampler, n_startup_trials: 5}
    pruner: {type: PatientPruner, wrapped_pruner: {type: MedianPruner}, patience: 3, metric: val_loss}
    parameters:
      optimizer:learning_rate: {type: loguniform, settings: {name: lr, low: 1e-5, high: 1e-1}}
      layers:0:units: {type: int, settings: {name: units, low: 8, high: 64, step: 8}}
      epochs: {type: int, settings: {low: 1, high: 9}}
      num_dense: {type: discrete_uniform, settings: {name: dense, low: 1, high: 4, q: 1}}
      optimizer:betas: {type: categorical, settings: {name: betas, choices: [[0.9], null, true, a]}, substitute: false}
    enqueue: [{lr: 0.01, "layers:0:units": 16}]
    grace_period: 5
    on_oom: retry_alone
    pruning: strict
"""
SLURM = """
    log: true
    slurm:
      jobs: 8
      batch: {A: project, n: 8, gres: "gpu:v100:1", t: 12:00:00, J: name, exclusive: true, mail-type: [END, FAIL]}
      kernel: conda activate env
      bash: [module load cuda]
"""


def test_every_key_is_read(files: Files) -> None:
    config = files.write(FULL, above=SLURM).load()
    assert config.slurm is not None
    assert config.slurm.batch == {
        "account": "project", "ntasks": "8", "gres": "gpu:v100:1", "time": "12:00:00", "job-name": "name",
        "exclusive": None, "mail-type": ["END", "FAIL"],
    }  # fmt: skip
    assert (config.slurm.jobs, config.slurm.bash, config.slurm.kernel) == (
        8,
        ["module load cuda"],
        "conda activate env",
    )
    study = config.optuna
    assert (study.gpu, study.reload, study.seed, study.timeout, study.n_trials) == (True, False, 7, 3600.0, 4)
    assert study.sampler is not None
    assert (study.sampler.type, study.sampler.arguments) == ("TPESampler", {"n_startup_trials": 5})
    assert [parameter.name for parameter in config.space.parameters] == ["lr", "units", "epochs", "dense", "betas"]
    assert config.space.by_key["optimizer:learning_rate"].settings["low"] == 1e-5
    assert not config.space.by_key["optimizer:betas"].substitute


def test_defaults(files: Files, tmp_path: Path) -> None:
    study = files.load().optuna
    assert (study.metric, study.direction, study.reload, study.gpu) == (["val_loss"], ["minimize"], False, False)
    assert (study.save_path, study.storage) == (str(tmp_path), f"sqlite:///{tmp_path}/s.db")
    assert (study.grace_period, study.max_consecutive_failures, study.on_oom) == (120, 10, "learn")


def test_every_metric_is_minimized_where_no_direction_is_given(files: Files) -> None:
    assert files.write("metric: [a, b]").load().optuna.direction == ["minimize", "minimize"]


def test_a_config_can_be_pickled(files: Files) -> None:
    config = files.write(FULL, above=SLURM).load()
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_snapshot_gives_the_same_config(files: Files, tmp_path: Path) -> None:
    model = "start: 2024-01-31\ntime: 12:00:00\nsmall: 1e-9\noptimizer: {learning_rate: 1}\nlayers: [{units: 1}]"
    config = files.write(FULL, above=SLURM, model=model).load("slurm:batch:comment=0700", "optuna:save_path=out")
    config.write_snapshot()
    assert load_snapshot(config.paths) == config
    for path in (config.paths.hyperparameters, config.paths.model):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(config.paths.snapshot)) == ["hyperparameters.yml", "model.yml"]


def test_the_snapshot_is_read_from_anywhere_and_without_the_objective(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = files.write("save_path: out").load()
    config.write_snapshot()
    files.objective.unlink()
    monkeypatch.chdir("/")
    assert load_snapshot(config.paths) == config


def test_no_snapshot_is_a_config_error(files: Files) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_snapshot(files.load().paths)


def test_conf_holds_the_model_and_the_optuna_section(files: Files) -> None:
    config = files.write(FULL).load()
    conf = config.conf()
    assert conf["epochs"] == 5
    assert list(conf["optuna"]["parameters"]) == list(config.space.by_key)
    conf["optuna"]["parameters"].clear()
    conf["layers"].clear()
    assert config.conf()["layers"]
    assert config.conf()["optuna"]["parameters"]


@pytest.mark.parametrize(
    ("lines", "name", "storage"),
    [
        ("study_name: x.db", "x", "sqlite:///{cwd}/x.db"),
        ("study_name: x", "x", "sqlite:///{cwd}/x.db"),
        ("study_name: x\nsave_path: out/deep", "x", "sqlite:///{cwd}/out/deep/x.db"),
        ("study_name: x\nstorage: journal\nsave_path: out", "x", "journal://{cwd}/out/x.journal"),
        ("study_name: x\nstorage: journal:///abs/x.log", "x", "journal:///abs/x.log"),
        ("study_name: x\nstorage: sqlite:///rel.db", "x", "sqlite:///{cwd}/rel.db"),
        ("study_name: x\nstorage: sqlite:////abs/x.db", "x", "sqlite:////abs/x.db"),
        ("study_name: x\nstorage: y.db\nsave_path: out", "x", "sqlite:///{cwd}/out/y.db"),
        ("study_name: x\nstorage: sqlite:///$SECRET/y.db", "x", "sqlite:///${SECRET}/y.db"),
        ("study_name: x\nstorage: postgresql://me@host/db", "x", "postgresql://me@host/db"),
        ("study_name: x\nstorage: redis://:${SECRET}@host:6379", "x", "redis://:${SECRET}@host:6379"),
        ("study_name: x\nstorage: ${SECRET}", "x", "${SECRET}"),
    ],
)
def test_name_and_storage(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, name: str, storage: str
) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    files.hyperparameters.write_text("optuna:\n  n_trials: 3\n" + "".join(f"  {line}\n" for line in lines.split("\n")))
    config = files.load()
    assert (config.optuna.study_name, config.optuna.storage) == (name, storage.replace("{cwd}", str(tmp_path)))
    assert config.storage_named == ("storage" in lines)
    assert "hidden" not in repr(config)


def test_save_path_falls_back_to_the_log_section(files: Files, tmp_path: Path) -> None:
    assert files.write(above="log: {save_path: logs}").load().paths.save_path == tmp_path / "logs"
    assert files.write("save_path: own", above="log: {save_path: logs}").load().paths.save_path == tmp_path / "own"


def test_paths_follow_home_and_variables(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    for variable in ("$SCRATCH", "${SCRATCH}"):
        assert files.write(f"save_path: {variable}/a").load().paths.save_path == tmp_path / "scratch" / "a"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.write("save_path: ~/b").load().paths.save_path == tmp_path / "b"


def test_paths_alone_can_be_read_from_a_file_that_has_other_mistakes(files: Files, tmp_path: Path) -> None:
    paths = load_paths(files.write("n_trails: 5\nsave_path: out").hyperparameters)
    assert (paths.save_path, paths.study_name) == (tmp_path / "out", "s")


def test_every_problem_is_told_at_once(files: Files) -> None:
    found = files.write(
        """
        n_trails: 5
        gpu: maybe
        direction: down
        sampler: {type: TPESamplr}
        pruner: {type: MedianPruner, n_warmup: 3}
        parameters:
          optimizer:lr: {type: float, settings: {low: 2, high: 1}}
          a: {type: flaot, settings: {low: 0, high: 1}}
        """,
        above="slurm: {jobs: 0, batch: {tme: 5}, workers: 2}\nlogs: {}",
    ).problems()
    assert set(found) == {
        "logs", "slurm: jobs", "slurm: workers", "slurm: batch: tme", "optuna: n_trails", "optuna: gpu",
        "optuna: direction", "optuna: sampler: type", "optuna: pruner: n_warmup", "optuna: parameters: optimizer:lr",
        "optuna: parameters: optimizer:lr: settings: low", "optuna: parameters: a: type",
    }  # fmt: skip
    suggestions = {where: problem.suggestion for where, problem in found.items() if problem.suggestion}
    assert suggestions == {
        "logs": "log", "slurm: workers": "workers_per_job", "slurm: batch: tme": "time", "optuna: n_trails": "n_trials",
        "optuna: sampler: type": "TPESampler", "optuna: pruner: n_warmup": "n_warmup_steps",
        "optuna: parameters: optimizer:lr": "optimizer:learning_rate", "optuna: parameters: a: type": "float",
    }  # fmt: skip


BAD: list[tuple[str, str, str]] = [
    ("n_trials: 0", "optuna: n_trials", "too small"),
    ("n_trials: -3", "optuna: n_trials", "too small"),
    ("max_interruptions: 0", "optuna: max_interruptions", "too small"),
    ("n_trials: many", "optuna: n_trials", "'many' is not a whole number"),
    ("n_trials: 2.5", "optuna: n_trials", "2.5 is not a whole number"),
    ("n_trials: true", "optuna: n_trials", "true is not a whole number"),
    ("n_trials: [5]", "optuna: n_trials", "[5] is not a whole number"),
    ("n_trials: null", "optuna: n_trials", "null is not a whole number"),
    ("timeout: 0", "optuna: timeout", "too small"),
    ("timeout: soon", "optuna: timeout", "not a number of seconds"),
    ("reload: 2", "optuna: reload", "not yes or no"),
    ("name: [a]", "optuna: study_name", "not text"),
    ("name: ''", "optuna: study_name", "is empty"),
    ('name: "a\\nb"', "optuna: study_name", "line break"),
    ("name: a/b", "optuna: study_name", "is a path"),
    ("study_name: other", "optuna: name", "one of the two"),
    ("metric: []", "optuna: metric", "empty list"),
    ("metric: {a: 1}", "optuna: metric", "not text"),
    ("metric: [a, b]\ndirection: minimize", "optuna: direction", "1 given for 2 metrics"),
    ("direction: [minimize, maximize]", "optuna: direction", "2 given for 1 metrics"),
    ("direction: maximise", "optuna: direction", "did you mean: maximize"),
    ("objective: nowhere.py", "optuna: objective", "no such file"),
    ("objective: .", "optuna: objective", "is a directory"),
    ("seed: -1", "optuna: seed", "too small"),
    ("seed: 5000000000", "optuna: seed", "too large"),
    ("on_oom: prun", "optuna: on_oom", "did you mean: prune"),
    ("claim_ahead: always", "optuna: claim_ahead", "true, false or auto"),
    ("save_path: ${NOT_SET_ANYWHERE}/x", "optuna: save_path", "${NOT_SET_ANYWHERE} is not set"),
    ("storage: redis://:${NOT_SET_ANYWHERE}@h", "optuna: storage", "${NOT_SET_ANYWHERE} is not set"),
    ("storage: x.dbs", "optuna: storage", "'x.dbs' is not a storage"),
    ("save_path: $NOT_SET_ANYWHERE/x", "optuna: save_path", "$NOT_SET_ANYWHERE is not set"),
    ("storage: sqlite:///$NOT_SET_ANYWHERE/x.db", "optuna: storage", "${NOT_SET_ANYWHERE} is not set"),
    ("storage: postgres://h/d", "optuna: storage", "did you mean: postgresql://"),
    ("storage: mongodb://me:pa55@h/d", "optuna: storage", "'mongodb://...@h/d' is not a storage"),
    ("storage: 'sqlite:///:memory:'", "optuna: storage", "one process only"),
    ("storage: journal://rel.journal", "optuna: storage", "not an absolute path"),
    ("sampler: 5", "optuna: sampler", "not a mapping"),
    ("sampler: {n_startup_trials: 3}", "optuna: sampler: type", "is missing"),
    ("parameters: [a]", "optuna: parameters", "not a mapping"),
    ("parameters: {a: 5}", "optuna: parameters: a", "not a mapping"),
    ("parameters: {a: {type: int}}", "optuna: parameters: a: settings", "is missing"),
    ("parameters: {a: {settings: {low: 1, high: 2}}}", "optuna: parameters: a: type", "is missing"),
    ("parameters: {a: {type: int, settings: [1, 2]}}", "optuna: parameters: a: settings", "not a mapping"),
    ("parameters: {a: {type: int, setting: {}}}", "optuna: parameters: a: setting", "did you mean: settings"),
    ("enqueue: {lr: 1}", "optuna: enqueue", "not a list of mappings"),
    ("enqueue: [{lr: 1}]", "optuna: enqueue: 0: lr", "no parameter of this name or key"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "where", "words"), BAD)
def test_bad_values(files: Files, lines: str, where: str, words: str) -> None:
    given = {line.split(":")[0] for line in lines.splitlines()}
    base = {"objective": str(files.objective), "n_trials": "4", "name": "s"}
    kept = [f"{key}: {value}" for key, value in base.items() if key not in given]
    files.hyperparameters.write_text("optuna:\n" + "".join(f"  {line}\n" for line in (*kept, *lines.splitlines())))
    found = files.problems()
    assert where in found, list(found)
    text = str(found[where])
    assert words in text
    assert "pydantic" not in text
    assert len(text.splitlines()) <= 4


SETTINGS: list[tuple[str, str, str, str]] = [
    ("int", "{low: 5, high: 1}", "low", "5 is greater than high, 1"),
    ("int", "{low: 0.5, high: 3}", "low", "not a whole number"),
    ("int", "{low: 0, high: 3, log: true}", "low", "no place on a logarithmic scale"),
    ("int", "{low: 1, high: 3, log: true, step: 2}", "step", "has no steps"),
    ("int", "{low: 1, high: 3, step: 0}", "step", "not positive"),
    ("int", "{low: 1}", "high", "is missing"),
    ("int", "{low: one, high: 3}", "low", "'one' is not a number"),
    ("int", "{low: 1, high: .inf}", "high", "not a number"),
    ("int", "{low: 1, high: 3, setp: 1}", "setp", "did you mean: step"),
    ("int", "{low: 1, high: 3, name: 5}", "name", "not a name"),
    ("float", "{low: -1, high: 1, log: true}", "low", "logarithmic"),
    ("float", "{low: 0, high: 1, log: true}", "low", "low > 0"),
    ("float", "{low: 1, high: 2, log: true, step: 0.1}", "step", "not both"),
    ("float", "{low: 1, high: 2, log: perhaps}", "log", "not yes or no"),
    ("float", "{low: 1, high: 2, step: -0.1}", "step", "not positive"),
    ("float", "{low: null, high: 2}", "low", "null is not a number"),
    ("loguniform", "{low: 0, high: 1}", "low", "low > 0"),
    ("loguniform", "{low: 1, high: 2, log: true}", "log", "unknown key"),
    ("uniform", "{low: 2, high: 1}", "low", "greater than high"),
    ("discrete_uniform", "{low: 0, high: 1}", "q", "is missing"),
    ("discrete_uniform", "{low: 0, high: 1, q: 0}", "q", "not positive"),
    ("discrete_uniform", "{low: 0, high: 1, q: null}", "q", "not a number"),
    ("categorical", "{choices: []}", "choices", "empty list"),
    ("categorical", "{choices: adam}", "choices", "not a list"),
    ("categorical", "{choices: [a, b, a]}", "choices", "'a' is given twice"),
    ("categorical", "{choices: [1, true]}", "choices", "true equals 1"),
    ("categorical", "{choices: [.nan]}", "choices", "nan is not a value"),
    ("categorical", "{low: 1, high: 2}", "choices", "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "key", "words"), SETTINGS)
def test_bad_settings(files: Files, kind: str, settings: str, key: str, words: str) -> None:
    found = files.write(f"parameters: {{x: {{type: {kind}, settings: {settings}}}}}").problems()
    assert words in str(found[f"optuna: parameters: x: settings: {key}"])


def test_two_parameters_of_one_name(files: Files) -> None:
    found = files.write(
        """
        parameters:
          a: {type: int, settings: {name: x, low: 1, high: 2}}
          b: {type: int, settings: {name: x, low: 1, high: 2}}
        """
    ).problems()
    assert "'x' is taken by a" in found["optuna: parameters: b: settings: name"].found


def test_a_colon_path_must_be_in_the_model_unless_custom_updates_reads_it(files: Files) -> None:
    line = "parameters: {'layers:2:units': {type: int, settings: {low: 1, high: 2}%s}}"
    problem = files.write(line % "").problems()["optuna: parameters: layers:2:units"]
    assert problem.suggestion in ("layers:0:units", "layers:1:units")
    assert "substitute: false" in str(problem.legal)
    files.write(line % ", substitute: false").load()
    files.write("parameters: {num_dense: {type: int, settings: {low: 1, high: 2}}}").load()


def test_the_model_may_not_have_a_section_of_our_own(files: Files) -> None:
    assert "model: optuna" in files.write(model="optuna: {}").problems()


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ("[1]", "not a mapping"), ("just text", "not a mapping")]
)
def test_files_that_hold_no_mapping(files: Files, text: str, words: str) -> None:
    files.model.write_text(text)
    assert words in str(files.problems()[str(files.model)])


def test_both_missing_files_are_told(files: Files) -> None:
    files.model.unlink()
    files.hyperparameters.unlink()
    assert set(files.problems()) == {str(files.model), str(files.hyperparameters)}


def test_a_file_without_the_optuna_section(files: Files) -> None:
    files.hyperparameters.write_text("log: true")
    assert files.problems()["optuna"].found == "is missing"


@pytest.mark.parametrize("given", ['"20"', "20", "2e1", "20.0"])
def test_a_whole_number_may_be_written_in_any_way(files: Files, given: str) -> None:
    assert files.write().load(f"optuna:n_trials={given}").optuna.n_trials == 20


@pytest.mark.parametrize(
    ("given", "value"), [("0", False), ("1", True), ("true", True), ("'no'", False), ("'1'", True)]
)
def test_yes_and_no_may_be_written_in_any_way(files: Files, given: str, value: Any) -> None:
    assert files.write(f"reload: {given}").load().optuna.reload is value


def test_enqueued_trials_are_named_as_in_the_study(files: Files) -> None:
    assert files.write(FULL).load().enqueued() == [{"lr": 0.01, "units": 16}]


@pytest.mark.parametrize(
    ("kind", "settings", "value", "legal"),
    [
        ("int", "{low: 1, high: 9, step: 2}", "4", "in steps of 2"),
        ("int", "{low: 1, high: 9}", "10", "a whole number from 1 to 9"),
        ("int", "{low: 1, high: 9}", "1.5", "a whole number from 1 to 9"),
        ("float", "{low: 0, high: 1}", "'x'", "a number from 0 to 1"),
        ("discrete_uniform", "{low: 0, high: 1, q: 0.25}", "0.3", "in steps of 0.25"),
        ("categorical", "{choices: [adam, sgd]}", "adamw", 'one of ["adam", "sgd"]'),
        ("categorical", "{choices: [1, 2]}", "true", "one of [1, 2]"),
        ("ordinal", "{choices: [1, 2]}", "3", "one of [1, 2]"),
        ("finrange", "{low: 0, high: 1, size: 3}", "0.4", "one of [0.0, 0.5, 1.0]"),
    ],
)
def test_enqueued_values_must_be_in_the_space(files: Files, kind: str, settings: str, value: str, legal: str) -> None:
    parameter = f"parameters: {{x: {{type: {kind}, settings: {settings}}}}}\n"
    problem = files.write(f"{parameter}enqueue: [{{x: {value}}}]").problems()["optuna: enqueue: 0: x"]
    assert problem.found.endswith("is not in the search space")
    assert legal in str(problem.legal)


def test_enqueued_values_on_the_edge_and_on_the_grid_are_in_the_space(files: Files) -> None:
    files.write(
        """
        parameters:
          a: {type: float, settings: {low: 0, high: 1, step: 0.1}}
          b: {type: loguniform, settings: {low: 1e-5, high: 1e-1}}
          c: {type: categorical, settings: {choices: [[1, 2], null, true]}}
        enqueue: [{a: 0.3, b: 1e-1, c: [1, 2]}, {a: 1, b: 1e-5, c: true}, {c: null}]
        """
    ).load()


def test_ordered_numbers_get_a_hint(files: Files) -> None:
    kinds = {"a": "[8, 16, 32]", "b": "[8, 32, 16]", "c": "['8', '16', '32']", "d": "[false, true]", "e": "[1, 2]"}
    lines = "".join(f"  {k}: {{type: categorical, settings: {{choices: {v}}}}}\n" for k, v in kinds.items())
    (hint,) = warnings_for(files.write(f"parameters:\n{lines}").load())
    assert hint.startswith("optuna: parameters: a: [8, 16, 32]")
    assert "ordinal" in hint


def test_a_model_in_json(files: Files, tmp_path: Path) -> None:
    files.model = tmp_path / "model.json"
    files.model.write_text('{\n\t"optimizer": {"learning_rate": 1e-3}\n}')
    assert files.load().model == {"optimizer": {"learning_rate": 0.001}}
    files.model.write_text('{\n"a": 1,\n"a": 2}')
    assert "'a' is given twice" in files.problems()[str(files.model)].found
    files.model.write_text('{\n"a": }')
    assert f"{files.model}, line 2, column 6" in files.problems()
    files.model.write_text("[" * 100_000)
    assert files.problems()
