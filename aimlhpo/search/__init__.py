"""Samplers and pruners as a configuration names them, with every keyword argument checked against its signature."""

from __future__ import annotations

from aimlhpo.search.building import Strategy, check_strategy, make_pruner, make_sampler, reseed, strategy_problems
from aimlhpo.search.registry import class_named, classes, options

__all__ = [
    "Strategy",
    "check_strategy",
    "class_named",
    "classes",
    "make_pruner",
    "make_sampler",
    "options",
    "reseed",
    "strategy_problems",
]
