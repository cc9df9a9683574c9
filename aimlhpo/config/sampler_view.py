"""`sampler_sees`: a number of trials that only samplers which model the study have a use for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.errors import Problem
from aimlhpo.suggestions import key_path

BOUNDED = ("TPESampler", "GPSampler", "PartialFixedSampler")


def view_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Where `sampler_sees` would have no effect."""
    sampler = optuna.get("sampler")
    name = sampler.get("type") if isinstance(sampler, Mapping) else sampler
    if optuna.get("sampler_sees") is not None and isinstance(name, str) and name not in BOUNDED:
        found = f"has no effect on {name}, which sees every trial"
        yield Problem(key_path("optuna", "sampler_sees"), found, f"leave it out, or a sampler of {', '.join(BOUNDED)}")
