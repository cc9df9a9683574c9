"""`watch`, `submit` and `stop` where no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from aimlhpo.cli.main import main
from aimlhpo.cli.watch import is_over, summarize_in_line
from aimlhpo.errors import SubmissionError
from aimlhpo.launch.base import LiveJobs
from aimlhpo.launch.local import LocalLauncher
from aimlhpo.paths import StudyPaths
from aimlhpo.results.status import AgentStatus, JobStatus, Status
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.trials import Counts
from tests.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_path of a study whose trials have all ended, on which nobody works."""
    project = Project(tmp_path_factory.mktemp("study"), n_trials=2)
    study = begin(project)
    for _ in range(2):
        study.tell(study.ask(), 1.0)
    return project.save_path


def begin(project: Project) -> optuna.Study:
    study = begin_study(project.config)
    project.config.write_snapshot()
    return study


def test_watching_a_finished_study_ends_at_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "2/2 trials done, 0 running, 0 failed" in said
    assert "is finished" in said


def test_nothing_is_submitted_for_a_finished_study(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(finished)]) == 3
    assert "nothing to do" in capsys.readouterr().out


def test_no_jobs_to_stop(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", str(finished), "--yes"]) == 3
    assert "no jobs in the queue" in capsys.readouterr().out


def test_stopping_goes_on_where_slurm_is_silent_for_a_moment(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = LiveJobs(running=1)
    answers = iter([running, SubmissionError("SLURM does not answer"), running, LiveJobs()])

    class SilentLauncher(LocalLauncher):
        def live_jobs(self, paths: StudyPaths) -> LiveJobs:
            answer = next(answers)
            if isinstance(answer, SubmissionError):
                raise answer
            return answer

        def cancel_jobs(self, paths: StudyPaths) -> LiveJobs:
            return running

    monkeypatch.setattr("aimlhpo.cli.stop.launcher_of_jobs", lambda paths: SilentLauncher())
    monkeypatch.setattr("aimlhpo.cli.stop._POLL", 0.0)
    assert main(["stop", str(finished), "--yes"]) == 0
    assert "2 of 2 trials are finished" in capsys.readouterr().out


def test_without_a_slurm_section_nothing_can_be_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(Project(tmp_path))
    assert main(["submit", str(tmp_path / "run")]) == 2
    assert "slurm: this section is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["watch", "--every", "soon"], "--every: 'soon'"),
        (["watch", "--every", "0"], "more than 0"),
        (["submit", "--jobs", "x"], "--jobs: 'x'"),
        (["submit", "--jobs", "0"], "whole number from 1"),
    ],
)
def test_wrong_numbers(finished: Path, argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, str(finished)]) == 2
    assert words in capsys.readouterr().err


def _status(*states: str, agents: int = 0, answers: bool = True) -> Status:
    jobs = tuple(JobStatus(f"1_{index}", state, None, None, None) for index, state in enumerate(states))
    working = tuple(AgentStatus(f"a{index}", "host", None, "python", ()) for index in range(agents))
    return Status(
        study="s", storage="x", save_path="/s", n_trials=9, counts=Counts(complete=3, running=2), best=(), rate=None,
        eta=None, agents=working, failed=(), reaped=(), jobs=jobs or None, slurm_answers=answers, interrupted=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "over"),
    [
        (_status(), True),
        (_status(agents=1), False),
        (_status("COMPLETED", "CANCELLED"), True),
        (_status("COMPLETED", "PENDING"), False),
        (_status("COMPLETING"), False),
        (_status(answers=False), False),
    ],
)
def test_a_study_is_over_when_nobody_works_on_it_or_will(status: Status, over: bool) -> None:
    assert is_over(status) is over


def test_one_line_of_status() -> None:
    line = summarize_in_line(_status("RUNNING", "RUNNING", "PENDING"))
    assert line == "3/9 trials done, 2 running, 0 failed; jobs: 2 running, 1 pending"
    assert summarize_in_line(_status(answers=False)).endswith("; SLURM does not answer")
