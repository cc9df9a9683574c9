"""Checkpoint directories: what is kept, what is removed, and what is nobody's to remove."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import ConfigError
from aimlhpo.ledger.checkpoints import Checkpoints, best_of, unwanted
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.trials import IMPORTED
from tests.project import Project

OBJECTIVE = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            folder = self.checkpoint_dir(trial)
            (folder / "deep").mkdir()
            (folder / "deep" / "weights").write_text("1" * 100)
            if trial.number == 1:
                raise RuntimeError("no result")
            return {"val_loss": abs(trial.number - 3)}
"""


def test_only_the_best_trial_keeps_its_checkpoints(tmp_path: Path) -> None:
    project = Project(tmp_path, OBJECTIVE, n_trials=5, keep_checkpoints="best")
    project.run("--local", "2")
    assert left(project) == [3]
    assert (project.config.paths.checkpoint(3) / "deep" / "weights").exists()


@pytest.mark.parametrize(("keep", "kept"), [("all", [0, 1, 2, 3, 4]), ("best", [3, 4]), ("none", [4])])
def test_what_is_kept_and_what_runs_is_left(tmp_path: Path, keep: str, kept: list[int]) -> None:
    project = Project(tmp_path, keep_checkpoints=keep)
    study = begin_study(project.config)
    for number in range(5):
        study.ask()
        project.config.paths.checkpoint(number).mkdir(parents=True)
    for number, value in enumerate((2.0, None, 1.0, 0.0)):
        study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
    checkpoints = Checkpoints(study, project.config)
    checkpoints.tidy()
    checkpoints.close()
    assert left(project) == kept


def left(project: Project) -> list[int]:
    """The trials that have a directory."""
    return sorted(int(path.name[-5:]) for path in project.config.paths.checkpoints.iterdir())


def test_unfinished_trials_links_and_strangers_are_left_alone(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path / "run", "s")
    paths.create()
    study = optuna.create_study()
    for state in ("COMPLETE", "RUNNING", "WAITING", "COMPLETE", "FAIL"):
        study.add_trial(create_trial(state=TrialState[state], values=[1.0] if state == "COMPLETE" else None))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("trial-00000", "trial-00001", "trial-00002", "trial-00004", "trial-4", "trial-00099", "mine"):
        (paths.checkpoints / name).mkdir(parents=True)
    paths.checkpoint(3).symlink_to(elsewhere)
    (paths.checkpoint(0) / "link").symlink_to(elsewhere)
    doomed = unwanted(paths, study.get_trials(), set())
    assert [path.name for path in doomed] == ["trial-00000", "trial-00004"]


def test_the_best_are_own_feasible_and_not_dominated() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for values in ([1.0, 1.0], [2.0, 2.0], [2.0, 1.0], [1.0, 1.0]):
        study.add_trial(create_trial(values=values))
    study.add_trial(create_trial(values=[0.0, 9.0], system_attrs={IMPORTED: {"number": 1}}))
    study.add_trial(create_trial(values=[0.0, 8.0], system_attrs={"constraints": [1.0]}))
    assert best_of(study.get_trials(), study.directions) == {0, 1, 3}


def test_interrupted_trials_keep_their_checkpoints(tmp_path: Path) -> None:
    """One trial stops the study in its middle; its directory is there when the study goes on."""
    objective = """
        import os, signal, time
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                mark = self.checkpoint_dir(trial) / "mark"
                if trial.number == 1 and not mark.exists():
                    mark.touch()
                    os.kill(os.getppid(), signal.SIGTERM)
                    time.sleep(600)
                return {"val_loss": 1.0, "found": int(mark.exists())}
    """
    project = Project(tmp_path, objective, n_trials=2, keep_checkpoints="none")
    project.run(expect=130)
    assert [path.name for path in (project.save_path / "checkpoints").iterdir()] == ["trial-00001"]
    project.run("-r", "1")
    assert project.records()[1]["metrics"]["found"] == 1
    assert list((project.save_path / "checkpoints").iterdir()) == []


def test_unknown_value_of_keep_checkpoints_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_checkpoints: 'last' is not known\n    legal: all, best, none"):
        _ = Project(tmp_path, keep_checkpoints="last").config
