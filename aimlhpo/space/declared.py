"""What is wrong with the entries of a search space, and with values that are said to lie in it.
The search space as the two files declare it, and everything that is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.dependencies import dependency_problems, listed, resolve
from aimlhpo.space.model_paths import SEARCH_MARK, exists, missing, search_entries, search_entry_problems
from aimlhpo.space.parameter_types import DOMAINS, GRID_DOMAINS, Domain, Settings, as_number, finite_values


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


PARAMETERS = ("optuna", "parameters")


@dataclass(frozen=True)
class Declared:
    """One parameter as it is written, in either file; `where` is its key path, `words` the names of its keys."""

    key: str
    entry: Mapping[str, Any]
    where: tuple[str, ...]
    words: tuple[str, str] = ("type", "settings")

    @property
    def name(self) -> str:
        """The parameter's name in the study: `settings: name`, or its key."""
        settings = self.entry.get("settings")
        return str(settings.get("name", self.key)) if isinstance(settings, Mapping) else self.key

    @property
    def sound(self) -> bool:
        """Whether kind and settings are there and right."""
        kind, settings = self.entry.get("type"), self.entry.get("settings")
        return isinstance(settings, Mapping) and kind is not None and not self.problems()

    @property
    def numeric(self) -> bool:
        """Whether every value of a sound parameter is a number."""
        values = DOMAINS[self.entry["type"]].values
        return values is None or all(_is_number(value) for value in values(self.entry["settings"]))

    def problems(self) -> list[Problem]:
        return parameter_problems(self.where, self.entry.get("type"), self.entry.get("settings"), self.words)


def declared(parameters: Any, model: Mapping[str, Any]) -> list[Declared]:
    """The parameters of both files, the hyperparameter YAML's first."""
    given = parameters.items() if isinstance(parameters, Mapping) else ()
    own = [Declared(str(key), entry, (*PARAMETERS, str(key))) for key, entry in given if isinstance(entry, Mapping)]
    words = ("suggest", "params")
    inside = search_entries(model).items()
    return own + [Declared(key, entry, ("model", *key.split(":"), SEARCH_MARK), words) for key, entry in inside]


def search_space_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Every mistake in the search space and the enqueued trials."""
    found = declared(optuna.get("parameters"), model)
    problems = search_entry_problems(model)
    for parameter in found:
        problems += parameter.problems()
        problems += _path_problems(parameter, model)
    problems += _twice(found)
    problems += _dependencies(found, model)
    problems += _conditional_grid(optuna.get("sampler"), found)
    return problems + list(_enqueue(optuna.get("enqueue"), found))


def _path_problems(parameter: Declared, model: Mapping[str, Any]) -> list[Problem]:
    """A colon path must be in the model config, unless only custom_updates reads it."""
    key = parameter.key
    if ":" not in key or parameter.entry.get("substitute", True) in (False, 0) or exists(model, key):
        return []
    absent = missing(model, key)
    legal = "a path that the model YAML has; or `substitute: false` where only custom_updates reads the value"
    return [Problem(key_path(*parameter.where), absent.found, legal, absent.suggestion)]


def _twice(found: list[Declared]) -> Iterator[Problem]:
    """One path in both files, and names that two parameters share."""
    keys: dict[str, Declared] = {}
    names: dict[str, Declared] = {}
    for parameter in found:
        if parameter.key in keys:
            other = key_path(*keys[parameter.key].where)
            yield Problem(key_path(*parameter.where), f"is searched twice: {other} has it too", "one of the two")
        elif parameter.name in names:
            taken = f"the name {show(parameter.name)} is taken by {names[parameter.name].key}"
            yield Problem(key_path(*parameter.where, parameter.words[1], "name"), taken, "a name of its own")
        keys.setdefault(parameter.key, parameter)
        names.setdefault(parameter.name, parameter)


def _dependencies(found: list[Declared], model: Mapping[str, Any]) -> list[Problem]:
    entries = {p.key: p.entry.get("dependency") for p in found}
    names = {p.key: p.name for p in found}
    where = {p.key: key_path(*p.where, "dependency") for p in found}
    problems = dependency_problems(entries, names, model, where)
    if problems:
        return problems
    by_key = {p.key: p for p in found}
    return [problem for p in found for problem in _multiply_problems(p, by_key, names, model, where[p.key])]


def _multiply_problems(
    parameter: Declared, by_key: Mapping[str, Declared], names: Mapping[str, str], model: Mapping[str, Any], where: str
) -> Iterator[Problem]:
    """Both factors must be numbers."""
    for entry in listed(parameter.entry.get("dependency")):
        if entry["type"] != "multiply":
            continue
        if parameter.sound and not parameter.numeric:
            yield Problem(where, "multiplies a parameter whose values are not all numbers", "numbers")
        key, value = resolve(entry["on"], names, model)
        if key is None and not _is_number(value):
            yield Problem(key_path(where, "on"), f"{entry['on']} is {show(value)}, not a number", "a number")
        elif key is not None and by_key[key].sound and not by_key[key].numeric:
            yield Problem(key_path(where, "on"), f"the values of {key} are not all numbers", "numbers")


def _is_number(value: Any) -> bool:
    return not isinstance(value, str) and as_number(value) is not None


def _conditional_grid(sampler: Any, found: list[Declared]) -> Iterator[Problem]:
    kind = sampler.get("type") if isinstance(sampler, Mapping) else sampler
    for parameter in found if kind == "GridSampler" else ():
        entries = listed(parameter.entry.get("dependency"))
        if any(isinstance(entry, Mapping) and entry.get("type") == "optimize_iff" for entry in entries):
            where = key_path(*parameter.where, "dependency")
            yield Problem(where, "GridSampler cannot take conditional parameters", "another sampler: BruteForceSampler")


def _enqueue(trials: Any, found: list[Declared]) -> Iterator[Problem]:
    known = {p.key: p for p in found} | {p.name: p for p in found}
    for index, trial in enumerate(trials if isinstance(trials, list) else []):
        for key, value in trial.items() if isinstance(trial, Mapping) else ():
            where = key_path("optuna", "enqueue", index, key)
            parameter = known.get(str(key))
            if parameter is None:
                legal = listing(known) or "none: no parameters are declared"
                yield Problem(where, "no parameter of this name or key", legal, did_you_mean(key, known))
            elif parameter.sound and (
                legal_value := outside(parameter.entry["type"], parameter.entry["settings"], value)
            ):
                yield Problem(where, f"{show(value)} is not in the search space", legal_value)
