"""YAML as it looks: data only, `12:00:00` stays text, `1e-3` is a number, and no key stands twice. JSON likewise.

Differences to PyYAML's safe loader, on purpose:

- numbers with an exponent need no dot (`1e-3`), and base 60 does not exist (`12:00:00` is text);
- a number with a leading zero (`0700`) is text, `1_000` is a number and `2024_01` is text;
- a key is never a boolean (`on:` is the key "on");
- dates are text in the hyperparameter YAML, and dates in the model YAML, as training codes expect them;
- a key given twice, any tag beyond plain data, and documents that grow when their aliases are followed are errors.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, show

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 100

_TAG = "tag:yaml.org,2002:"
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+|0b[01]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_DATE = re.compile(
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ]+[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)?$"
)
_PLAIN_TAGS = frozenset(
    _TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge", "timestamp")
)


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of this module; gives up on documents that are too large while it reads."""

    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MAX_NODES:
            raise yaml.YAMLError(f"holds more than {MAX_NODES:,} values")
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)


class _DatedLoader(_Loader):
    """The same, and dates are read as dates."""


def _install(loader: type[yaml.SafeLoader], dates: bool) -> None:
    loader.yaml_implicit_resolvers = {}
    loader.add_implicit_resolver(_TAG + "bool", _BOOL, list("tTfFyYnNoO"))
    loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
    loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
    loader.add_implicit_resolver(_TAG + "null", _NULL, ["~", "n", "N", ""])
    loader.add_implicit_resolver(_TAG + "merge", re.compile(r"^<<$"), ["<"])
    if dates:
        loader.add_implicit_resolver(_TAG + "timestamp", _DATE, list("0123456789"))


_install(_Loader, dates=False)
_install(_DatedLoader, dates=True)


def from_python(value: Any, where: str, *, dates: bool = False) -> Any:
    """A copy of what Python code gives in place of a file, as the data that YAML text would hold.

    Tuples and arrays become lists, numbers of NumPy and the like Python's own, paths text. Raises ConfigError with the
    place of anything else.
    """
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {
            from_python(key, where): from_python(item, key_path(where, key), dates=dates) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [from_python(item, key_path(where, number), dates=dates) for number, item in enumerate(value)]
    if value is None or (dates and isinstance(value, date)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    legal = "text, numbers, true or false, None, and dicts and lists of these" + (", and dates" if dates else "")
    raise ConfigError(Problem(where, f"{show(value)} is of type {type(value).__name__}", legal))


def load_yaml(path: Path, *, dates: bool = False) -> Any:
    """Read one YAML file, or JSON where its name says so. Raises ConfigError with the place of every mistake."""
    if path.suffix.lower() == ".json":
        return parse_json(read_text(path), str(path))
    return parse_yaml(read_text(path), str(path), dates=dates)


def read_text(path: Path) -> str:
    """The text of a file that a person wrote. Raises ConfigError for what cannot be one."""
    where = str(path)
    try:
        if not path.is_file():
            found = "is a directory" if path.is_dir() else "is not a file" if path.exists() else "no such file"
            beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
            near = did_you_mean(path.name, beside)
            legal = "the path of a YAML file"
            raise ConfigError(Problem(where, found, legal, str(path.parent / near) if near else None))
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(Problem(where, f"the file has {size:,} bytes", f"at most {MAX_BYTES:,} bytes"))
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(Problem(where, error.strerror or str(error), "a file that can be read")) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is not UTF-8: this is not a text file"
        raise ConfigError(Problem(where, found, "YAML text in UTF-8")) from error
    if "\0" in text:
        raise ConfigError(Problem(where, "holds NUL bytes: this is not a text file", "YAML text in UTF-8"))
    return text


def parse_json(text: str, where: str) -> Any:
    """Plain data from JSON text. Raises ConfigError."""
    repeated: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise ConfigError(Problem(place, error.msg, "JSON")) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(Problem(where, "is nested too deeply, or holds a number too large", "plain JSON")) from error
    if repeated:
        raise ConfigError([Problem(where, f"the key {key!r} is given twice", "each key once") for key in repeated])
    return data


def parse_yaml(text: str, where: str, *, dates: bool = False) -> Any:
    """Plain data from YAML text; no two places share an object. Raises ConfigError."""
    loader = (_DatedLoader if dates else _Loader)(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        problems = list(_refused(node, where))
        if problems:
            raise ConfigError(problems)
        for mapping in _nodes(node):
            for key, _ in mapping.value if isinstance(mapping, yaml.MappingNode) else ():
                if key.tag in (_TAG + "bool", _TAG + "timestamp"):
                    key.tag = _TAG + "str"
        return _own(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_problem(error, where, text)) from error
    except yaml.YAMLError as error:
        raise ConfigError(Problem(where, _one_line(str(error)), "YAML that a person wrote")) from error
    except RecursionError as error:
        raise ConfigError(_too_deep(where)) from error
    except ValueError as error:
        raise ConfigError(Problem(where, _one_line(str(error)), "plain YAML data")) from error
    finally:
        loader.dispose()


def _refused(root: yaml.Node, where: str) -> Iterator[Problem]:
    """What this loader refuses: tags, keys given twice, aliases that hold themselves or make the document too large."""
    if _expanded(root, {}, where, 0) > MAX_NODES:
        yield Problem(where, "grows too large when its aliases (*name) are followed", f"at most {MAX_NODES:,} values")
        return
    for node in _nodes(root):
        if node.tag not in _PLAIN_TAGS:
            found = f"the tag {node.tag.replace(_TAG, '!!', 1)} is not allowed"
            yield Problem(_at(where, node.start_mark), found, "plain data: a YAML file cannot run code")
        first: dict[Hashable, yaml.Mark] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            place = _at(where, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                yield Problem(place, "a list or mapping as a key", "text or a number as a key")
            elif key.tag != _TAG + "merge" and key.value in first:
                found = f"the key {key.value!r} is given twice (first in line {first[key.value].line + 1})"
                yield Problem(place, found, "each key once")
            else:
                first[key.value] = key.start_mark


def _expanded(node: yaml.Node, known: dict[int, int], where: str, depth: int) -> int:
    """How many values the node holds once every alias is followed."""
    if depth > MAX_DEPTH:
        raise ConfigError(_too_deep(where))
    if id(node) in known:
        if known[id(node)] < 0:
            raise ConfigError(Problem(_at(where, node.start_mark), "an alias that holds itself", "plain data"))
        return known[id(node)]
    known[id(node)] = -1
    known[id(node)] = 1 + sum(_expanded(child, known, where, depth + 1) for child in _children(node))
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, in the order of the text."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(reversed(_children(node)))


def _own(value: Any) -> Any:
    """The same data with an object of its own wherever an alias stood."""
    if isinstance(value, dict):
        return {key: _own(item) for key, item in value.items()}
    return [_own(item) for item in value] if isinstance(value, list) else value


def _at(where: str, mark: yaml.Mark | None) -> str:
    return f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where


def _too_deep(where: str) -> Problem:
    return Problem(where, "is nested too deeply", f"at most {MAX_DEPTH} levels")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _syntax_problem(error: yaml.MarkedYAMLError, where: str, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    found = _one_line(error.problem or error.context or "cannot be read")
    if "'\\t'" in found:
        found = "a tab where YAML wants spaces"
    if mark and mark.line < len(lines := text.splitlines()):
        found += f"\n    {lines[mark.line][:100]}\n    {' ' * min(mark.column, 100)}^"
    return Problem(_at(where, mark), found, "YAML")


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes wherever this loader or PyYAML's would read something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    ambiguous = any(pattern.match(text) for pattern in (_BOOL, _INT, _FLOAT, _NULL, _DATE))
    style = '"' if "\n" in text else "'" if ambiguous else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: Any) -> str:
    """YAML text that this loader, and PyYAML's, read back as the same data; keys stay in order."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))
