"""What is wrong with the entries of a search space, and with values that are said to lie in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.config.domains import DOMAINS, Domain, Settings
from aimlhpo.config.finite import finite_values
from aimlhpo.config.grid_domains import GRID_DOMAINS
from aimlhpo.config.values import as_number
from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show


def parameter_problems(
    above: tuple[str, ...], kind: Any, settings: Any, words: tuple[str, str] = ("type", "settings")
) -> list[Problem]:
    """Every mistake in one parameter's kind and settings; `above` is its key path, `words` what the two are called."""
    if kind is None or settings is None:
        return []
    if not isinstance(kind, str) or kind not in DOMAINS:
        where = key_path(*above, words[0])
        return [Problem(where, f"{show(kind)} is not known", listing(DOMAINS), did_you_mean(kind, DOMAINS, 0.5))]
    if not isinstance(settings, Mapping):
        return []
    return _settings_problems((*above, words[1]), DOMAINS[kind], settings)


def _settings_problems(here: tuple[str, ...], domain: Domain, settings: Settings) -> list[Problem]:
    problems = list(_key_problems(here, domain, settings)) + list(_name_problems(here, settings))
    if all(key in settings for key in domain.required):
        problems += [Problem(key_path(*here, key), what, legal) for key, what, legal in domain.check(settings)]
        if "distribution" in domain.required and not problems:
            problems += _distribution_problems((*here, "distribution"), settings)
    return problems


def _distribution_problems(here: tuple[str, ...], settings: Settings) -> list[Problem]:
    """What the values of a `random` parameter are drawn from: a parameter without a name of its own."""
    drawn = settings["distribution"]
    if not isinstance(drawn, Mapping) or set(drawn) != {"type", "settings"} or not isinstance(drawn["settings"], dict):
        return [Problem(key_path(*here), f"{show(drawn)} is not a distribution", "{type: ..., settings: {...}}")]
    if drawn["type"] in GRID_DOMAINS:
        where, legal = key_path(*here, "type"), listing(kind for kind in DOMAINS if kind not in GRID_DOMAINS)
        return [Problem(where, f"{show(drawn['type'])} is a grid's own type", legal)]
    problems = parameter_problems(here, drawn["type"], drawn["settings"])
    values = None if problems else finite_values(drawn["type"], drawn["settings"])
    if values is not None and len(values) < (as_number(settings["count"]) or 0):
        where = key_path(*here[:-1], "count")
        problems.append(Problem(where, f"{show(settings['count'])} of {len(values)} values", "no more than there are"))
    return problems


def _key_problems(here: tuple[str, ...], domain: Domain, settings: Settings) -> Iterator[Problem]:
    for key in settings:
        if key not in domain.settings:
            near = did_you_mean(key, domain.settings)
            yield Problem(key_path(*here, key), "unknown key", listing(domain.settings), near)
    for key in domain.required:
        if key not in settings:
            yield Problem(key_path(*here, key), "is missing", domain.meaning)


def _name_problems(here: tuple[str, ...], settings: Settings) -> Iterator[Problem]:
    name = settings.get("name", "x")
    if not isinstance(name, str) or not name.strip():
        yield Problem(key_path(*here, "name"), f"{show(name)} is not a name", "text: the parameter's name in the study")


def outside(kind: str, settings: Settings, value: Any) -> str | None:
    """Why a value cannot be one of a (correct) parameter's, or None."""
    if kind == "random":
        return outside(settings["distribution"]["type"], settings["distribution"]["settings"], value)
    domain = DOMAINS[kind]
    if domain.values is not None:
        legal = domain.values(settings)
        return None if any(_same(value, one) for one in legal) else f"one of {show(legal)}"
    number = None if isinstance(value, str) else as_number(value)
    low, high = as_number(settings["low"]) or 0, as_number(settings["high"]) or 0
    if number is None or not low <= number <= high or (domain.number is int and isinstance(number, float)):
        return f"a {'whole ' if domain.number is int else ''}number from {show(low)} to {show(high)}"
    step = as_number(settings.get("q" if kind == "discrete_uniform" else "step"))
    if step and abs((number - low) / step - round((number - low) / step)) > 1e-8:
        return f"a number from {show(low)} to {show(high)} in steps of {show(step)}"
    return None


def _same(one: Any, other: Any) -> bool:
    """Equal as values of a YAML file: 1 is 1.0, and neither is true."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
