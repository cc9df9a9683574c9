"""From what pydantic found to problems in our own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from aimlhpo.config.schema import HyperparameterFile
from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

Location = tuple[str | int, ...]


def translate(error: ValidationError) -> list[Problem]:
    """One problem for each thing that pydantic refused, in the order of the schema."""
    return [_problem(dict(detail)) for detail in error.errors(include_url=False)]


def _problem(detail: dict[str, Any]) -> Problem:
    location: Location = detail["loc"]
    where = key_path(*location)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "aimlhpo":
        return Problem(where, context["found"], context["legal"], context["suggestion"])
    if kind == "missing":
        return Problem(where, "is missing", _description(location))
    if kind == "extra_forbidden":
        return unknown_key(location[:-1], str(location[-1]), fields_at(location[:-1]))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(where, f"{show(detail['input'])} is not a mapping", listing(fields_at(location)) or "a mapping")
    return Problem(where, f"{show(detail['input'])} is not legal here", _description(location))


def unknown_key(above: Iterable[str | int], key: str, known: Iterable[str]) -> Problem:
    """A key that the schema does not have, with the ones that it has."""
    known = list(known)
    where = key_path(*above, key)
    return Problem(where, "unknown key", listing(known) or None, did_you_mean(key, known))


def fields_at(location: Location) -> list[str]:
    """The keys that are legal in the section at `location`."""
    section = _section(location)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _description(location: Location) -> str | None:
    section = _section(location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return field.description if field else None


def _section(location: Location) -> type[BaseModel] | None:
    """The model that describes the mapping at `location`; parameters stand under keys of their own."""
    section: type[BaseModel] | None = HyperparameterFile
    free_key = False
    for segment in location:
        if free_key:
            free_key = False
            continue
        field = section.model_fields.get(str(segment)) if section else None
        if field is None:
            return None
        section = model_in(field.annotation)
        free_key = segment == "parameters"
    return None if free_key else section


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation like `Annotated[X, ...] | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)


def annotate(problems: Iterable[Problem], sources: Mapping[str, str]) -> list[Problem]:
    """Say which command line argument a problem came from, where it came from one."""
    return [
        Problem(f"{p.where} (from {sources[p.where]})", p.found, p.legal, p.suggestion) if p.where in sources else p
        for p in problems
    ]
