"""`parameters`: the search space, each entry under its key."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.values import Flag, Mapping, Section, Text, illegal
from aimlhpo.suggestions import show


class ParameterSection(Section):
    """One parameter of the search space, under its key."""

    type: Text = Field(description="The kind of parameter.")
    settings: Mapping = Field(
        description="The name in the study (the key where not given), and arguments of that kind."
    )
    substitute: Flag = Field(
        default=True,
        description="Whether the value replaces the model YAML's at the key; false where only custom_updates reads it.",
    )
    pass_as: Text | None = Field(
        default=None,
        alias="pass-as",
        description="How `command` gets the value, with {v} in its place. Default: --NAME={v}; "
        "booleans as --NAME or --no-NAME.",
    )
    dependency: Any = Field(
        default=None,
        description="What the value has to do with another: {type: multiply, on: OTHER}, or {type: optimize_iff, "
        "on: OTHER, conditions: [{type: equal, compare_value: VALUE}], otherwise: VALUE}; a list for several.",
    )

    @property
    def name(self) -> str:
        """The parameter's name in the study."""
        return str(self.settings["name"])


def _parameters(value: Any) -> Any:
    """Give every entry without a name its key as the name."""
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "one entry per parameter")
    return {str(key): _named(str(key), entry) for key, entry in value.items()}


def _named(key: str, entry: Any) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("settings"), dict):
        return entry
    return {**entry, "settings": {"name": key, **entry["settings"]}}


Parameters = Annotated[dict[str, ParameterSection], BeforeValidator(_parameters)]
