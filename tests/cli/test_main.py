"""The command as a whole: help, exit codes, and how errors are told."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from aimlhpo.cli import main as cli
from aimlhpo.cli.arguments import Verb, argument
from aimlhpo.errors import (
    AimlhpoError,
    ConfigError,
    Interrupted,
    ObjectiveError,
    Problem,
    StorageError,
    StudyError,
    StudyFailed,
    SubmissionError,
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "aimlhpo", *arguments], capture_output=True, text=True, check=False)


def with_verb(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Let `aimlhpo schema`, which needs no arguments, run something else."""
    monkeypatch.setattr(cli, "import_module", lambda name: types.SimpleNamespace(run_schema=run))


def raising(error: BaseException) -> object:
    def run(arguments: object) -> int:
        raise error

    return run


@pytest.mark.parametrize("verb", [*cli.VERBS])
def test_every_verb_has_help_with_an_example_and_the_exit_codes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"aimlhpo {verb}" in text
    assert "examples:" in text
    assert "exit codes:" in text


def test_help_lists_the_verbs_for_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in cli.VERBS if verb != "agent")
    assert "  agent" not in text


def test_without_a_verb_the_help_is_shown_and_it_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "optimize" in capsys.readouterr().out


def test_a_verb_that_is_not_there_is_told_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimise"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "did you mean: aimlhpo optimize" in told


def test_a_wrong_option_is_told_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", ".", "--jsn"]) == 2
    told = capsys.readouterr().err
    assert "--jsn" in told
    assert "usage: aimlhpo status" in told


@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_wrong_number_of_workers_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "h.yml", "m.yml", "--local", value]) == 2
    assert "--local" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AimlhpoError("x"), 1),
        (ConfigError(Problem("optuna: n_trials", "0", "1 or more")), 2),
        (StudyError("x"), 2),
        (ObjectiveError("x"), 2),
        (StudyFailed("x"), 4),
        (StorageError("x"), 4),
        (SubmissionError("x"), 5),
        (Interrupted("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_with_their_exit_code_and_without_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb(monkeypatch, raising(error))
    assert cli.main(["schema"]) == code
    told = capsys.readouterr().err
    assert told.startswith("x\n" if isinstance(error, Interrupted) else "error: ")
    assert "Traceback" not in told


def test_several_problems_are_counted_and_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [Problem("optuna: n_trials", "0", "1 or more"), Problem("optuna: gpus", "unknown key", None, "gpu")]
    with_verb(monkeypatch, raising(ConfigError(problems)))
    assert cli.main(["schema"]) == 2
    told = capsys.readouterr().err
    assert "2 problems" in told
    assert "legal: 1 or more" in told
    assert "did you mean: gpu" in told


def test_an_unforeseen_error_is_told_as_our_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb(monkeypatch, raising(ZeroDivisionError("hm")))
    assert cli.main(["schema"]) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: hm" in told
    assert "bug in aimlhpo" in told


def test_a_reader_that_leaves_is_no_error() -> None:
    script = (
        "import sys; from aimlhpo.cli import main as cli;"
        "cli.import_module = lambda name: __import__('types').SimpleNamespace("
        "run_schema=lambda arguments: [print('x' * 1000) for _ in range(1000)] and 0);"
        "sys.exit(cli.main(['schema']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_the_module_runs_as_the_command() -> None:
    done = command("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("aimlhpo ")


def test_a_new_verb_is_a_module_and_an_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("aimlhpo.cli.verbs.greet")
    vars(module)["run_greet"] = lambda arguments: print(f"hello {arguments.name}") or 0
    monkeypatch.setitem(sys.modules, "aimlhpo.cli.verbs.greet", module)
    monkeypatch.setitem(
        cli.VERBS, "greet", Verb("greet", "say hello", "Say hello.", "greet you", None, (argument("name"),))
    )
    assert cli.main(["greet", "you"]) == 0
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("hello you\n")
    assert "greet     say hello" in printed
