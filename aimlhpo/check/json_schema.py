"""The schema of the hyperparameter YAML for editors (JSON schema) and for people (a table of every key)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aimlhpo.config.fields import AUTO
from aimlhpo.config.resolve import RESOURCES
from aimlhpo.config.sbatch_options import OPTIONS, SHORT, WITHOUT_VALUE
from aimlhpo.config.schema import HyperparameterFile
from aimlhpo.space.parameter_types import PARAMETER_TYPES, SETTINGS

Schema = dict[str, Any]
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
    several = {"type": "array", "items": _ref("SlurmSection"), "minItems": 1}
    schema["properties"]["slurm"] = {
        "description": schema["properties"]["slurm"]["description"],
        "anyOf": [_ref("SlurmSection"), several, {"type": "null"}],
    }
    batch = {name: _option(name) for name in sorted(OPTIONS)}
    batch |= {letter: _option(name) for letter, name in SHORT.items()}
    defs["SlurmSection"]["properties"]["batch"]["properties"] = batch
    study, parameter = defs["OptunaSection"], defs["ParameterSection"]
    study["properties"]["name"] = study["properties"]["study_name"]
    study["required"] = [key for key in study["required"] if key not in ("study_name", "n_trials")]
    study["anyOf"] = [{"required": ["name"]}, {"required": ["study_name"]}]
    for kind in ("sampler", "pruner", "terminator"):
        of_kind = study["properties"][kind]
        study["properties"][kind] = {"description": of_kind["description"], "anyOf": _strategies(kind)}
    parameter["properties"]["type"]["enum"] = list(PARAMETER_TYPES)
    parameter["allOf"] = []
    for name, kind_of_parameter in PARAMETER_TYPES.items():
        settings = {
            "description": kind_of_parameter.meaning,
            "type": "object",
            "properties": {key: SETTINGS[key] for key in kind_of_parameter.settings},
            "required": list(kind_of_parameter.required),
            "additionalProperties": False,
        }
        then = {"properties": {"settings": settings}}
        parameter["allOf"].append({"if": {"properties": {"type": {"const": name}}}, "then": then})
    return schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _strategies(kind: str) -> list[Schema]:
    """What a sampler, pruner or terminator may be: a class name, or a class with its arguments."""
    from aimlhpo.search.building import OWN_CLASSES, classes, options

    known = {name: options(cls) for name, cls in classes(kind).items()}
    if kind in OWN_CLASSES:  # chosen for the study
        known = {AUTO: {}, **known}
    schemas: list[Schema] = [{"enum": list(known)}]
    for name, arguments in known.items():
        properties: dict[str, Schema] = {"type": {"const": name}}
        needed = ["type"]
        for key, parameter in arguments.items():
            annotation = str(parameter.annotation).removeprefix("<class '").removesuffix("'>")
            types = [part.strip() for part in annotation.split("|")]
            schema = properties[key] = {}
            if key in RESOURCES:
                schema["type"] = ["integer", "string"]
            elif all(part in _SIMPLE or part == "None" for part in types):
                schema["type"] = [_SIMPLE.get(part, "null") for part in types]
            if parameter.default is parameter.empty:
                needed.append(key)
            else:
                schema["default"] = parameter.default
        if kind == "pruner":
            properties["metric"] = {"type": "string", "description": "Which of several metrics trials report."}
        schemas.append({"type": "object", "properties": properties, "required": needed, "additionalProperties": False})
    elsewhere = {"type": "object", "required": ["type"], "properties": {"type": _ELSEWHERE}}
    return [*schemas, _ELSEWHERE, elsewhere, {"type": "null"}]


def _option(name: str) -> Schema:
    described: Schema = {"description": f"sbatch --{name}"}
    return {**described, "type": ["boolean", "null"]} if name in WITHOUT_VALUE else described


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
