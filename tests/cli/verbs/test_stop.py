"""`aimlhpo stop` where no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from aimlhpo.config.schema import Config
from aimlhpo.errors import SubmissionError
from aimlhpo.launch.base import LiveJobs
from aimlhpo.launch.local import LocalLauncher
from tests.cli.studies import fill_study
from tests.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_path of a study whose trials have all ended, on which nobody works."""
    project = Project(tmp_path_factory.mktemp("study"), n_trials=2)
    fill_study(project, 2)
    return project.save_path


def test_no_jobs_to_stop(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", str(finished), "--yes"]) == 3
    assert "no jobs in the queue" in capsys.readouterr().out


def test_stopping_goes_on_where_slurm_is_silent_for_a_moment(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = LiveJobs(running=1)
    answers = iter([running, SubmissionError("SLURM does not answer"), running, LiveJobs()])

    class SilentLauncher(LocalLauncher):
        def live_jobs(self, config: Config) -> LiveJobs:
            answer = next(answers)
            if isinstance(answer, SubmissionError):
                raise answer
            return answer

        def cancel_jobs(self, config: Config) -> LiveJobs:
            return running

    monkeypatch.setattr("aimlhpo.cli.verbs.jobs.launcher_of_jobs", lambda paths: SilentLauncher())
    monkeypatch.setattr("aimlhpo.cli.verbs.jobs._POLL", 0.0)
    assert main(["stop", str(finished), "--yes"]) == 0
    assert "2 of 2 trials are finished" in capsys.readouterr().out


def test_taking_jobs_away_says_how_to_have_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, n_trials=2, slurm={"jobs": 30, "keep": True, "batch": {"account": "a"}})
    fill_study(project, 1)

    class KeepingLauncher(LocalLauncher):
        def live_jobs(self, config: Config) -> LiveJobs:
            return LiveJobs(running=29, waiting=1)

        def take_away_jobs(self, config: Config, count: int) -> tuple[int, int]:
            return 1, count - 1

    monkeypatch.setattr("aimlhpo.cli.verbs.jobs.launcher_of_jobs", lambda paths: KeepingLauncher())
    assert main(["stop", str(project.save_path), "--jobs", "5", "--yes"]) == 0
    assert f"aimlhpo submit {project.save_path} --jobs 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "again"), [("v100", "; the others: aimlhpo submit {} --section v100"), ("old", "")]
)
def test_the_jobs_of_one_section_are_stopped_also_where_the_file_has_it_no_more(
    section: str, again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, n_trials=2, slurm=[{"batch": {"partition": name}} for name in ("a100", "v100")])
    fill_study(project, 1)
    living = {"a100", "v100", "old"}

    class SectionsLauncher(LocalLauncher):
        def live_jobs(self, config: Config) -> LiveJobs:
            return LiveJobs(running=int(config.section in living))

        def cancel_jobs(self, config: Config) -> LiveJobs:
            living.remove(str(config.section))
            return LiveJobs(running=1)

    monkeypatch.setattr("aimlhpo.cli.verbs.jobs.launcher_of_jobs", lambda paths: SectionsLauncher())
    assert main(["stop", str(project.save_path), "--section", section, "--yes"]) == 0
    assert living == {"a100", "v100", "old"} - {section}
    said = capsys.readouterr().out
    assert f"of section {section}\n1 of 2 trials are finished{again.format(project.save_path)}\n" in said
    assert main(["stop", str(project.save_path), "--section", "new", "--yes"]) == 2
