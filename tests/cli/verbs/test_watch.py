"""`aimlhpo watch`: a study in one line, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from aimlhpo.cli.main import main
from aimlhpo.cli.verbs.status import is_over, screen, summarize_in_line
from aimlhpo.errors import ExitCode
from aimlhpo.results.status import AgentStatus, JobStatus, Status
from aimlhpo.search.stopping import StoppingCriteria, make_rules
from aimlhpo.storage.base import Counts, backend_of
from tests.cli.studies import fill_study
from tests.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_path of a study whose trials have all ended, on which nobody works."""
    project = Project(tmp_path_factory.mktemp("study"), n_trials=2)
    fill_study(project, 2)
    return project.save_path


def test_watching_a_finished_study_ends_at_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "2/2 trials done, 0 running, 0 failed" in said
    assert "is finished" in said


def test_watching_a_study_that_was_given_up_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=9, max_consecutive_failures=2)
    study = fill_study(project, 1)
    for _ in range(2):
        study.tell(study.ask(), state=TrialState.FAIL)
    overview = backend_of(study._storage).overview(study._study_id)
    assert StoppingCriteria(study, make_rules(study, project.config)).ended(overview)
    assert main(["watch", str(project.save_path)]) == ExitCode.STUDY_FAILED
    said = capsys.readouterr().out
    assert "8 trials are left: start it again with reload: 1" in said
    assert "ended by max_consecutive_failures: 2 trials in a row have failed" in said


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


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (_status("PENDING", "PENDING"), "none; waiting for 2 queued jobs"),
        (_status("RUNNING", "PENDING"), "none; 1 job just begun or ending, waiting for 1 queued job"),
        (_status("FAILED", "COMPLETED"), "none; 6 trials are left: aimlhpo submit /s"),
        (_status(answers=False), "none; SLURM does not say whether jobs are queued"),
        (_status(), "none; 6 trials are left: start it again with reload: 1"),
    ],
)
def test_nobody_is_asked_to_start_what_waits_in_the_queue(status: Status, line: str, tmp_path: Path) -> None:
    config = Project(tmp_path).config
    (found,) = (words for words in screen(status, config) if words.startswith("agents"))
    assert found == f"agents   {line}"


def test_one_line_of_status() -> None:
    line = summarize_in_line(_status("RUNNING", "RUNNING", "PENDING"))
    assert line == "3/9 trials done, 2 running, 0 failed; jobs: 2 running, 1 pending"
    assert summarize_in_line(_status(answers=False)).endswith("; SLURM does not answer")
