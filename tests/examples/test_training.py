"""The examples' training code by itself: it learns, and it goes on after an interruption."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class InterruptionError(Exception):
    """Stands for whatever ends a worker in the middle of a training."""


def load(name: str) -> ModuleType:
    path = EXAMPLES / name
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(framework: str, epochs: int) -> dict[str, Any]:
    conf: dict[str, Any] = yaml.safe_load((EXAMPLES / framework / "model.yml").read_text())
    conf["trainer"]["epochs"] = epochs
    return conf


class TestTorch:
    def test_an_interrupted_training_ends_like_an_undisturbed_one(self, tmp_path: Path) -> None:
        digits, conf = load("torch/digits.py"), config("torch", epochs=4)
        epochs: list[int] = []

        def interrupt(epoch: int, results: dict[str, float]) -> None:
            epochs.append(epoch)
            if epochs == [0, 1]:
                raise InterruptionError

        with pytest.raises(InterruptionError):
            digits.train(conf, "cpu", tmp_path, interrupt)
        resumed = digits.train(conf, "cpu", tmp_path, interrupt)
        assert epochs == [0, 1, 2, 3]
        assert resumed == pytest.approx(digits.train(conf, "cpu"), rel=1e-4)

    def test_a_finished_training_is_not_run_again(self, tmp_path: Path) -> None:
        digits, conf = load("torch/digits.py"), config("torch", epochs=2)
        first = digits.train(conf, "cpu", tmp_path)
        again = digits.train(conf, "cpu", tmp_path, lambda epoch, results: pytest.fail("trained again"))
        assert again == pytest.approx(first)

    def test_it_learns(self) -> None:
        results = load("torch/digits.py").train(config("torch", epochs=20))
        assert results["test_accuracy"] > 0.8


class TestKeras:
    def test_an_interrupted_training_goes_on_with_its_next_epoch(self, tmp_path: Path) -> None:
        tumours, conf = load("keras/tumours.py"), config("keras", epochs=4)

        class Interrupt(keras.callbacks.Callback):
            epochs: list[int] = []  # noqa: RUF012

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.epochs.append(epoch)
                if self.epochs == [0, 1]:
                    raise InterruptionError

        with pytest.raises(InterruptionError):
            tumours.train(conf, tmp_path, [Interrupt()])
        before = yaml.safe_load((tmp_path / "history.json").read_text())
        results = tumours.train(conf, tmp_path, [Interrupt()])
        after = yaml.safe_load((tmp_path / "history.json").read_text())
        assert Interrupt.epochs == [0, 1, 2, 3]
        assert results["epochs"] == 4
        assert after[:2] == before
        assert after[2]["loss"] < before[1]["loss"]

    def test_it_learns(self) -> None:
        assert load("keras/tumours.py").train(config("keras", epochs=12))["test_accuracy"] > 0.8
