"""The schema of the hyperparameter YAML for editors (JSON schema) and for people (a table of every key)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from aimlhpo.config.resolve import RESOURCES
from aimlhpo.config.sbatch_options import OPTIONS, SHORT, WITHOUT_VALUE
from aimlhpo.config.schema import HyperparameterFile
from aimlhpo.space.parameter_types import PARAMETER_TYPES, SETTINGS, ParameterType

Schema = dict[str, Any]
_OURS: dict[str, dict[str, Schema]] = {
    "sampler": {},
    "pruner": {"metric": {"type": "string", "description": "Which of several metrics trials report."}},
}
_ELSEWHERE: Schema = {
    "type": "string",
    "pattern": "[./]",
    "description": "PACKAGE.MODULE.CLASS, FILE.py:CLASS, or optunahub/PACKAGE",
}
_SIMPLE = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}


def json_schema() -> Schema:
    """JSON schema (draft 2020-12) of the hyperparameter YAML, with the samplers and pruners of Optuna."""
    schema = HyperparameterFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "aimlhpo hyperparameters"
    defs = schema["$defs"]
    schema["properties"]["log"] = {**schema["properties"]["log"], "anyOf": [{"const": True}, _ref("LogSection")]}
    schema["properties"]["log"].pop("$ref", None)
    for key, section in (("mlflow", "MlflowSection"), ("tensorboard", "TensorboardSection")):
        defs["LogSection"]["properties"][key]["anyOf"] = [{"type": "boolean"}, {"type": "string"}, _ref(section)]
    _amend_study(defs["OptunaSection"])
    batch = {name: _option(name) for name in sorted(OPTIONS)}
    batch |= {letter: _option(name) for letter, name in SHORT.items()}
    defs["SlurmSection"]["properties"]["batch"]["properties"] = batch
    defs["ParameterSection"]["allOf"] = [_type_rule(name, kind) for name, kind in PARAMETER_TYPES.items()]
    defs["ParameterSection"]["properties"]["type"]["enum"] = list(PARAMETER_TYPES)
    return schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _amend_study(study: Schema) -> None:
    """`name` beside `study_name`, and every sampler and pruner with its arguments."""
    properties = study["properties"]
    properties["name"] = properties["study_name"]
    study["required"] = [key for key in study["required"] if key not in ("study_name", "n_trials")]
    study["anyOf"] = [{"required": ["name"]}, {"required": ["study_name"]}]
    for kind in ("sampler", "pruner", "terminator"):
        names, by_class = _strategies(kind)
        properties[kind] = {
            "description": properties[kind]["description"],
            "anyOf": [
                {"enum": names},
                *by_class,
                _ELSEWHERE,
                {"type": "object", "required": ["type"], "properties": {"type": _ELSEWHERE}},
                {"type": "null"},
            ],
        }


def _strategies(kind: str) -> tuple[list[str], list[Schema]]:
    """Class names, and one schema for each class."""
    from aimlhpo.search.building import classes, options

    schemas = []
    for name, cls in classes(kind).items():
        arguments = {key: _argument(key, parameter) for key, parameter in options(cls).items()} | _OURS.get(kind, {})
        needed = [key for key, parameter in options(cls).items() if parameter.default is parameter.empty]
        properties = {"type": {"const": name}, **arguments}
        schemas.append(
            {"type": "object", "properties": properties, "required": ["type", *needed], "additionalProperties": False}
        )
    return list(classes(kind)), schemas


def _argument(key: str, parameter: inspect.Parameter) -> Schema:
    annotation = str(parameter.annotation).removeprefix("<class '").removesuffix("'>")
    names = [part.strip() for part in annotation.split("|")]
    schema: Schema = {}
    if all(name in _SIMPLE or name == "None" for name in names):
        schema["type"] = [_SIMPLE.get(name, "null") for name in names]
    if key in RESOURCES:
        schema["type"] = ["integer", "string"]
    if parameter.default is not parameter.empty:
        schema["default"] = parameter.default
    return schema


def _option(name: str) -> Schema:
    if name in WITHOUT_VALUE:
        return {"description": f"sbatch --{name}", "type": ["boolean", "null"]}
    return {"description": f"sbatch --{name}"}


def _type_rule(name: str, kind: ParameterType) -> Schema:
    settings = {
        "description": kind.meaning,
        "type": "object",
        "properties": {key: SETTINGS[key] for key in kind.settings},
        "required": list(kind.required),
        "additionalProperties": False,
    }
    return {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"settings": settings}}}


def reference() -> str:
    """Markdown tables of every key of the YAML, and of the kinds of parameters."""
    schema = HyperparameterFile.model_json_schema()
    rows = [row for section, model in _SECTIONS for row in _rows(section, schema["$defs"][model])]
    keys = _table(("key", "type", "default", "meaning"), rows)
    kinds = [
        (f"`{name}`", ", ".join(f"`{key}`" for key in kind.settings if key != "name"), kind.meaning)
        for name, kind in PARAMETER_TYPES.items()
    ]
    return f"{keys}\n\n{_table(('type', 'settings', 'value'), kinds)}\n"


_SECTIONS = (
    ("log", "LogSection"),
    ("log: mlflow", "MlflowSection"),
    ("log: tensorboard", "TensorboardSection"),
    ("slurm", "SlurmSection"),
    ("optuna", "OptunaSection"),
    ("optuna: parameters: KEY", "ParameterSection"),
)


def _rows(section: str, model: Schema) -> list[tuple[str, ...]]:
    required = model.get("required", [])
    return [
        (f"`{section}: {key}`", _kind(field), _default(key, field, required), field.get("description", ""))
        for key, field in model["properties"].items()
    ]


def _default(key: str, field: Schema, required: list[str]) -> str:
    if key in required:
        return "required"
    value = field.get("default")
    if isinstance(value, bool):
        return "true" if value else "false"
    if value in (None, "", [], {}):
        return ""
    value = ", ".join(value) if isinstance(value, list) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(field: Schema) -> str:
    """The type of a key in words."""
    if "anyOf" in field:
        kinds = [_kind(option) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return " or ".join(str(word) for word in field["enum"])
    return _WORDS.get(field.get("type", ""), "mapping")


_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list"}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
