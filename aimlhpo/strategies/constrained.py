"""Constraints that a study can never compute, as far as its files tell."""

from __future__ import annotations

from collections.abc import Iterator

from aimlhpo.errors import Problem
from aimlhpo.space import Parameter
from aimlhpo.strategies.finite import stored_values
from aimlhpo.strategies.situation import Situation, is_categorical
from aimlhpo.suggestions import key_path, show


def constraint_problems(study: Situation) -> Iterator[Problem]:
    """Constraints that stand twice, and parameters in them that have no number in every trial."""
    texts = [constraint.text for constraint in study.constraints]
    for index, constraint in enumerate(study.constraints):
        where = key_path("optuna", "constraints", index)
        if constraint.text in texts[:index]:
            yield Problem(where, f"{show(constraint.text)} is there before", "each constraint once")
        for name in constraint.names:
            parameter = study.by_name.get(name)
            if parameter is not None and name not in study.metric:
                yield from _parameter_problems(parameter, where, study)


def _parameter_problems(parameter: Parameter, where: str, study: Situation) -> Iterator[Problem]:
    legal = "metrics, and parameters that are a number in every trial"
    if not study.in_every_trial(parameter) and not isinstance(parameter.otherwise, int | float):
        yield Problem(where, f"{parameter.name} is not searched in every trial", legal)
    elif is_categorical(parameter):
        values = map(parameter.codec.decode, stored_values(parameter))
        word = next((value for value in values if not isinstance(value, int | float)), None)
        if word is not None:
            yield Problem(where, f"{parameter.name} can be {show(word)}, which is not a number", legal)
