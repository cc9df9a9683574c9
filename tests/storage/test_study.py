"""How a study is made, loaded and compared with the configuration.

A study that `optuna create-study` made and others worked on is used as it is, and left usable for them. A study takes
few connections: servers have few, and a study may have many agents.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.check.check import check
from aimlhpo.errors import StudyError
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.open import open_storage
from aimlhpo.storage.study import find_study, load_study
from tests.project import QUADRATIC, Project
from tests.servers import PostgreSQL
from tests.waiting import wait_until

OPTUNA = str(Path(sys.executable).with_name("optuna"))
SPACE = {"x": {"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0, "log": False, "step": None}}}


def cli(*arguments: str) -> str:
    done = subprocess.run([OPTUNA, "-q", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_command(url: str, trials: int) -> None:
    """The study, and trials of it, by Optuna's own command."""
    study = ["--storage", url, "--study-name", "s"]
    cli("create-study", *study, "--direction", "minimize")
    for _ in range(trials):
        asked = json.loads(
            cli("ask", *study, "--search-space", json.dumps(SPACE), "--sampler", "RandomSampler", "-f", "json")
        )
        cli("tell", *study, "--trial-number", str(asked["number"]), "--values", str((asked["params"]["x"] - 0.5) ** 2))


def by_ask_and_tell(study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.report(x, 1)
        trial.set_user_attr("note", "mine")
        study.tell(trial, (x - 0.5) ** 2)


def plain_storage(kind: str, folder: Path) -> Any:
    if kind == "sqlite":
        return f"sqlite:///{folder}/plain.db"
    return JournalStorage(JournalFileBackend(f"{folder}/plain.journal"))


def facts(trials: list[FrozenTrial]) -> list[Any]:
    """Everything that a storage holds of a trial."""
    return [
        (t.number, t.state, t.values, t.params, t.distributions, t.user_attrs, t.system_attrs, t.intermediate_values,
         t.datetime_start, t.datetime_complete)
        for t in trials
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("journal", marks=pytest.mark.slow)])
def test_thirty_trials_go_on_unharmed(tmp_path: Path, kind: str) -> None:
    url = f"{kind}:///{tmp_path}/plain.{'db' if kind == 'sqlite' else 'journal'}"
    if kind == "sqlite":
        by_command(url, 1)
    else:
        optuna.create_study(study_name="s", storage=plain_storage(kind, tmp_path))
    plain = optuna.load_study(study_name="s", storage=plain_storage(kind, tmp_path))
    by_ask_and_tell(plain, 30 - len(plain.trials))
    plain.tell(plain.ask(), state=TrialState.FAIL)
    asked = plain.ask()  # somebody else is at work on it
    asked.suggest_float("x", 0.0, 1.0)
    before = facts(plain.trials)

    project = Project(tmp_path, QUADRATIC, storage=url, n_trials=36, reload=1)
    project.run("--local", "2")  # the 30 count: six more

    plain = optuna.load_study(study_name="s", storage=plain_storage(kind, tmp_path))
    after = plain.trials
    assert facts(after[:32]) == before
    assert [trial.state for trial in after[32:]] == [TrialState.COMPLETE] * 6
    rows = (project.save_path / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 37  # the one that failed, too

    plain.tell(asked.number, 0.3)
    by_ask_and_tell(plain, 2)
    assert len(plain.trials) == 40
    if kind == "sqlite":
        assert json.loads(cli("best-trial", "--storage", url, "--study-name", "s", "-f", "json"))["state"] == "COMPLETE"
    project.run("-r", "1", expect=3)


def plain_study(folder: Path, **more: Any) -> tuple[optuna.Study, str]:
    url = f"journal:///{folder}/plain.journal"
    return optuna.create_study(study_name="s", storage=open_storage(url), **more), url


def parameter(kind: str, **settings: Any) -> dict[str, Any]:
    return {"model:x": {"type": kind, "settings": {"name": "x", **settings}}}


INCOMPATIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"direction": "maximize"}, "optuna: direction", "is maximize, but the study was made with minimize"),
    ({"metric": ["a", "b"], "direction": ["minimize", "minimize"], "pruner": None}, "optuna: direction",
     "is minimize, minimize, but the study was made with minimize"),
    ({"parameters": parameter("categorical", choices=[1, 2])}, "optuna: parameters: x", "CategoricalDistribution"),
    ({"parameters": parameter("int", low=0, high=9)}, "optuna: parameters: x", "IntDistribution"),
    ({"parameters": parameter("loguniform", low=0.1, high=9.0)}, "optuna: parameters: x", '"log": true'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "where", "told"), INCOMPATIBLE, ids=[f"{where} {told[:20]}" for _, where, told in INCOMPATIBLE]
)
def test_what_cannot_go_on_is_told_with_its_key(tmp_path: Path, keys: dict[str, Any], where: str, told: str) -> None:
    study, url = plain_study(tmp_path)
    by_ask_and_tell(study, 2)
    before = facts(study.trials)
    problems = check(Project(tmp_path, storage=url, reload=1, **keys).config)
    assert where in {problem.where for problem in problems}
    assert told in "\n".join(map(str, problems))
    assert facts(study.trials) == before


def test_a_place_in_a_list_is_no_number_of_plain_optuna(tmp_path: Path) -> None:
    study, url = plain_study(tmp_path)
    study.tell(study.ask({"x": optuna.distributions.IntDistribution(8, 64)}), 1.0)
    project = Project(tmp_path, storage=url, reload=1, parameters=parameter("ordinal", choices=[8, 16]))
    (problem,) = check(project.config)
    assert "is stored as a place in the list of its values" in problem.found


def test_ranges_may_differ_and_parameters_come_and_go(tmp_path: Path) -> None:
    study, url = plain_study(tmp_path)
    study.tell(study.ask({"y": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 9)}), 1.0)
    project = Project(tmp_path, storage=url, reload=1)
    assert begin_study(project.config).study_name == "s"


# --- connections ---


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is not needed is given up at once, not when the collector comes by."""
    gc.disable()
    yield
    gc.enable()


def connections(server: PostgreSQL, url: str) -> int:
    name = url.rpartition("/")[2]
    return int(server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"))


def wait_for_at_most(most: int, server: PostgreSQL, url: str) -> None:
    """One that was closed is counted until the server has seen its end; one that was kept stays."""
    wait_until(lambda: connections(server, url) <= most, f"{most} connections")


def test_each_open_study_has_two_at_most(tmp_path: Path, postgresql_server: PostgreSQL, no_collector: None) -> None:
    url = postgresql_server.url()
    project = Project(tmp_path, storage=url)
    made = begin_study(project.config)
    loaded = load_study(project.config)
    assert len(made.trials) == len(loaded.trials) == 0
    wait_for_at_most(4, postgresql_server, url)


def test_what_is_not_there_keeps_none(tmp_path: Path, postgresql_server: PostgreSQL, no_collector: None) -> None:
    url = postgresql_server.url()
    project = Project(tmp_path, storage=url)
    for _ in range(5):
        assert find_study(project.config) is None
        with pytest.raises(StudyError):
            load_study(project.config)
    wait_for_at_most(0, postgresql_server, url)
