"""Samplers and pruners as a configuration names them, with every keyword argument checked against its signature."""

from aimlhpo.strategies.catalogue import classes, options
from aimlhpo.strategies.naming import class_named
from aimlhpo.strategies.problems import strategy_problems
from aimlhpo.strategies.seeding import reseed
from aimlhpo.strategies.study import Strategy, check_strategy, make_pruner, make_sampler

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
