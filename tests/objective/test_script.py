"""What scripts call: aimlhpo.report, aimlhpo.checkpoint_dir and aimlhpo.add_to_argparse."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import aimlhpo
from aimlhpo.errors import ConfigError
from tests.command_project import CommandProject

PARAMETERS = {
    "optimizer:rate": {"type": "loguniform", "settings": {"name": "rate", "low": 1e-5, "high": 0.1}},
    "depth": {"type": "int", "settings": {"low": 1, "high": 9}},
    "layers": {"type": "categorical", "settings": {"choices": [[16], [32, 32]]}},
    "act": {"type": "categorical", "settings": {"choices": ["100%", "tanh"]}, "pass-as": "-a {v}"},
    "deep": {"type": "categorical", "settings": {"choices": [True, False]}},
    "fast": {"type": "categorical", "settings": {"choices": [True, False]}, "pass-as": "--quick"},
    "clip": {"type": "categorical", "settings": {"choices": [True, False]}, "pass-as": "--clip={v}"},
    "width": {"type": "logfinrange", "settings": {"low": 8, "high": 64, "size": 4, "cast_int": True}},
    "fixed": {"type": "constant", "settings": {"value": 7}},
    "each": {"type": "multiple", "settings": {"values": ["a", 1]}},
    "steps": {"type": "linear", "settings": {"start": 0, "end": 1, "step": 0.5}},
    "drawn": {"type": "random", "settings": {"distribution": {"type": "int"}, "count": 3}},
    "times": {"type": "ordinal", "settings": {"choices": [1, 2]}, "dependency": {"type": "multiply", "on": "depth"}},
}


def parser(space: Any) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    aimlhpo.add_to_argparse(made, space)
    return made


def test_report_in_a_study(tmp_path: Path) -> None:
    script = """
        import numpy, sys, aimlhpo
        for epoch in range(3):
            print("half a line", end="")
            aimlhpo.report(epoch=epoch, val_loss=numpy.float32(0.5), share=numpy.int64(epoch))
        sys.stdout = None
        aimlhpo.report(last="yes")
    """
    project = CommandProject(tmp_path, script, n_trials=1)
    project.run()
    trial = project.study().trials[0]
    assert trial.intermediate_values == {0: 0.5, 1: 0.5, 2: 0.5}
    assert project.records()[0]["metrics"] == {"epoch": 2, "val_loss": 0.5, "share": 2, "last": "yes"}


def test_report_outside_of_a_study_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    aimlhpo.report(epoch=1, val_loss=object())
    assert capfd.readouterr() == ("", "")


def test_report_refuses_what_is_no_number(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AIMLHPO_TRIAL", "0")
    with pytest.raises(TypeError, match="report takes numbers"):
        aimlhpo.report(val_loss=object())
    assert capfd.readouterr().out == ""


def test_report_of_a_torch_scalar(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setenv("AIMLHPO_TRIAL", "0")
    aimlhpo.report(step=1, val_loss=torch.tensor(0.5))
    assert capfd.readouterr().out == '\x1e{"step": 1, "val_loss": 0.5}\n'


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, aimlhpo; aimlhpo.report, aimlhpo.checkpoint_dir, aimlhpo.add_to_argparse; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"optuna", "torch", "tensorflow", "numpy", "pydantic", "yaml"} & set(done.stdout.split())


def test_checkpoint_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIMLHPO_CHECKPOINT_DIR", str(tmp_path / "a" / "b"))
    assert aimlhpo.checkpoint_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    monkeypatch.delenv("AIMLHPO_CHECKPOINT_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert aimlhpo.checkpoint_dir() != aimlhpo.checkpoint_dir()


def test_options_read_what_the_command_writes() -> None:
    from aimlhpo.config.command import parameter_arguments

    values = {"rate": 1e-05, "depth": 3, "layers": [32, 32], "act": "100%", "deep": False, "fast": True, "clip": False}
    values |= {"width": 16, "fixed": 7, "each": 1, "steps": 0.5, "drawn": 12, "times": 6}
    line = [
        word
        for key, entry in PARAMETERS.items()
        for name in [entry["settings"].get("name", key)]
        for word in parameter_arguments(name, values[name], entry.get("pass-as"))
    ]
    assert vars(parser(PARAMETERS).parse_args(line)) == values
    assert "100%" in parser(PARAMETERS).format_help()


@pytest.mark.parametrize("line", [["--depth", "x"], ["--depth", "1.5"], ["-a", "relu"], ["--layers", "[1]"]])
def test_options_refuse_other_values(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser(PARAMETERS).parse_args(line)
    assert "error: argument" in capsys.readouterr().err


def test_options_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "hyperparameters.yml"
    path.write_text(yaml.safe_dump({"optuna": {"parameters": PARAMETERS}}))
    assert parser(path).parse_args(["--rate", "0.01"]).rate == 0.01
    assert parser(str(path)).parse_args([]).rate is None


def test_a_file_without_parameters(tmp_path: Path) -> None:
    path = tmp_path / "hyperparameters.yml"
    path.write_text("optuna: {name: s}\n")
    with pytest.raises(ValueError, match="no `optuna: parameters`"):
        parser(path)
    with pytest.raises(ConfigError, match="no such file"):
        parser(tmp_path / "none.yml")
