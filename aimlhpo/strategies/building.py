"""Makes a strategy from a mapping that was checked before: `type`, and keyword arguments."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning

from aimlhpo.strategies.catalogue import nested_kind, options
from aimlhpo.strategies.naming import class_named

_WARNS = "warn_independent_sampling"


def build(kind: str, entry: Mapping[str, Any], seed: int | None) -> Any:
    """An instance, with `seed` wherever a class takes one. Raises what the class raises."""
    cls = class_named(kind, entry["type"])
    known = options(cls)
    given = {key: value for key, value in entry.items() if key != "type"}
    arguments = {key: _argument(known[key], value, seed) if key in known else value for key, value in given.items()}
    if "seed" in known:
        arguments.setdefault("seed", seed)
    if _WARNS in known:  # in every trial; a check notes it once
        arguments.setdefault(_WARNS, False)
    if "constant_liar" in known:
        # There is always a trial that runs while another is sampled: without this both may be given the same values.
        arguments.setdefault("constant_liar", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # for arguments that a later Optuna will refuse
        return cls(**arguments)


def _argument(parameter: inspect.Parameter, value: Any, seed: int | None) -> Any:
    nested = nested_kind(parameter)
    if nested and value is not None:
        return build(nested, as_entry(value), seed)
    return np.asarray(value) if "np.ndarray" in str(parameter.annotation) and value is not None else value


def as_entry(value: Any) -> Any:
    """A nested strategy may be a mapping, or its class name alone."""
    return {"type": value} if isinstance(value, str) else value
