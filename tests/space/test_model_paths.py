"""Colon paths into the model config."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from aimlhpo.errors import ConfigError
from aimlhpo.space.model_paths import ModelPathError, exists, lookup, nearest, paths, substitute

CONF: dict[str, Any] = {
    "optimizer": {"learning_rate": 0.1, "name": "adam"},
    "layers": [{"units": 32}, {"units": 16}],
    3: {"a": None},
    "epochs": 5,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [("epochs", 5), ("optimizer:name", "adam"), ("layers:1:units", 16), ("3:a", None), ("layers:0", {"units": 32})],
)
def test_lookup(path: str, value: Any) -> None:
    assert exists(CONF, path)
    assert lookup(CONF, path) == value


@pytest.mark.parametrize("path", ["", "optimizer:", "layers:2", "layers:-1", "layers:x", "epochs:0", "optimizer:lr"])
def test_paths_that_are_not_there(path: str) -> None:
    assert not exists(CONF, path)
    with pytest.raises(ModelPathError):
        lookup(CONF, path)


def test_substitute_changes_a_copy() -> None:
    choice = [1, 2]
    changed = substitute(CONF, {"layers:1:units": 64, "optimizer": choice, "3:a": 1})
    assert changed == {"optimizer": [1, 2], "layers": [{"units": 32}, {"units": 64}], 3: {"a": 1}, "epochs": 5}
    assert CONF["layers"][1]["units"] == 16
    changed["optimizer"].append(3)
    assert choice == [1, 2]


def test_a_missing_path_names_the_nearest() -> None:
    with pytest.raises(ModelPathError, match="did you mean: optimizer:learning_rate") as caught:
        substitute(CONF, {"optimizer:lr": 1})
    assert isinstance(caught.value, ConfigError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("optimiser:learning_rate", "optimizer:learning_rate"),
        ("epoch", "epochs"),
        ("zzz", None),
        ("layers:5:units", "layers:0:units"),
    ],
)
def test_nearest(path: str, near: str | None) -> None:
    assert nearest(CONF, path) == near


def test_paths_come_in_the_order_of_the_file() -> None:
    assert list(paths(CONF))[:4] == ["optimizer", "optimizer:learning_rate", "optimizer:name", "layers"]
    assert "3:a" in paths(CONF)
