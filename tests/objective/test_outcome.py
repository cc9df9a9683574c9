from __future__ import annotations

import pickle
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from aimlhpo.objective.base import BadValue, MissingMetric, extract_values, scalars


@pytest.mark.parametrize(
    "value",
    [
        0.25,
        Fraction(1, 4),
        np.float32(0.25),
        np.float64(0.25),
        np.array(0.25),
        torch.tensor(0.25),
        torch.tensor(0.25, requires_grad=True),
        np.array([0.25]),
        torch.tensor([[0.25]]),
    ],
)
def test_one_number_of_any_framework_is_taken(value: Any) -> None:
    assert extract_values({"loss": value, "other": None}, ["loss"]) == [0.25]
    assert extract_values(value, ["loss"]) == [0.25]


def test_a_tensorflow_scalar_is_its_number() -> None:
    import tensorflow as tf

    assert extract_values({"loss": tf.constant(0.25)}, ["loss"]) == [0.25]
    assert extract_values({"loss": tf.Variable([2])}, ["loss"]) == [2.0]


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3), np.uint8(3)])
def test_integers_become_floats(value: Any) -> None:
    values = extract_values({"loss": value}, ["loss"])
    assert values == [3.0]
    assert type(values[0]) is float


def test_several_metrics_come_in_the_order_of_the_study() -> None:
    assert extract_values({"b": 2, "c": 3, "a": 1}, ["a", "b"]) == [1.0, 2.0]
    assert extract_values((1, 2), ["a", "b"]) == [1.0, 2.0]
    assert extract_values([1, np.float64(2)], ["a", "b"]) == [1.0, 2.0]


@pytest.mark.parametrize("results", [[1.0], (1, 2, 3), 1.0, None, "ab"])
def test_a_wrong_number_of_values_is_refused(results: Any) -> None:
    with pytest.raises(BadValue, match="2 metrics a, b"):
        extract_values(results, ["a", "b"])


@pytest.mark.parametrize("results", [{"val_los": 1.0, "acc": 0.5}, {}])
def test_a_missing_metric_names_what_was_returned(results: dict[str, float]) -> None:
    with pytest.raises(MissingMetric, match="val_loss") as caught:
        extract_values(results, ["val_loss"])
    assert caught.value.cause.startswith("missing metric: val_loss")
    for name in results:
        assert name in str(caught.value)
        assert name in caught.value.cause


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), torch.tensor(float("nan"))])
def test_nan_has_a_cause_of_its_own(value: Any) -> None:
    with pytest.raises(BadValue) as caught:
        extract_values({"loss": value}, ["loss"])
    assert caught.value.cause == "nan"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        ("0.5", "'0.5' (str)"),
        ("x", "'x' (str)"),
        (True, "True (bool)"),
        (np.bool_(True), "bool"),
        (torch.tensor(True), "torch.Tensor"),
        (1 + 2j, "complex"),
        (np.complex128(1), "numpy.complex128"),
        ([0.5], "[0.5] (list)"),
        ((0.5,), "(tuple)"),
        (np.array([0.5, 0.5]), "numpy.ndarray"),
        (torch.tensor([0.5, 0.5]), "torch.Tensor"),
        (float("inf"), "inf (float)"),
        (-np.float64("inf"), "inf"),
        (10**400, "(int)"),
        (object(), "object"),
    ],
)
def test_a_bad_value_is_named_with_its_type(value: Any, words: str) -> None:
    for results in ({"loss": value}, value):
        with pytest.raises(BadValue, match="loss") as caught:
            extract_values(results, ["loss"])
        assert words in str(caught.value)
        assert caught.value.cause.startswith("bad value: loss is ")


def test_the_message_stays_on_one_screen_and_one_line() -> None:
    with pytest.raises(BadValue) as caught:
        extract_values({"loss": "line\n" * 100_000}, ["loss"])
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_value_that_cannot_describe_itself() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(BadValue, match="Rude"):
        extract_values(Rude(), ["loss"])


def test_the_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadValue("nan", "metric 'loss' is nan")))
    assert (type(error), error.cause, str(error)) == (BadValue, "nan", "metric 'loss' is nan")


def test_scalars_keeps_what_fits_into_a_table() -> None:
    results = {
        "loss": np.float32(0.5),
        "n": torch.tensor(3),
        "note": "fine",
        "ok": True,
        "curve": [1],
        "z": None,
    }
    assert scalars(results) == {"loss": 0.5, "n": 3, "note": "fine", "ok": True}
    assert scalars(0.5) == {}


def test_it_imports_no_framework() -> None:
    code = "import sys, aimlhpo.objective.base; print({'numpy', 'torch', 'optuna'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
