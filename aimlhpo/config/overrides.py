"""What the command line changes in the two YAML files: flags such as `--n-trials 50`, and `section:key=value`.

A path is a colon path into the hyperparameter YAML (`optuna:n_trials`) or the model YAML (`optimizer:learning_rate`);
dots may stand for colons, and `sampler` and `pruner` for keys of the `optuna` section. A plain value in the model YAML
is the value; a sweep such as `1,2` or `interval(0, 1)`, in Hydra's grammar, makes a parameter of the search space. All
of it works on the plain data of the files, before anything is checked.

sweep    = element "," element ...  |  function
function = choice(ELEMENT, ...)  |  range([START,] STOP [, STEP])  |  interval(START, END)
         | tag(log, FUNCTION)
element  = a number, a word, 'text', "text", [a list] or {a mapping}, as in YAML
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from aimlhpo.config.resolve import section_name
from aimlhpo.config.sbatch_options import long_name
from aimlhpo.config.yaml import parse_yaml
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup, missing, nearest, substitute
from aimlhpo.space.parameter_types import as_number

Entry = dict[str, Any]
FUNCTIONS = {
    "choice": "choice(a, b, ...)",
    "range": "range(START, STOP, STEP)",
    "interval": "interval(START, END)",
    "tag": "tag(log, interval(START, END))",
}
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\(")
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
SECTIONS = ("log", "slurm", "optuna")
DEFAULTS = {"sampler": "TPESampler", "pruner": "MedianPruner"}
PARAMETER_KEYS = ("type", "settings", "substitute", "dependency")
TEXT_FLAGS = ("name", "objective", "storage", "save_path")
LIST_FLAGS = ("direction", "metric")
ALIASES = {"name": "study_name"}


# --- sweeps ---


@dataclass(frozen=True)
class Piece:
    """A part of the text and where it begins."""

    text: str
    start: int


@dataclass(frozen=True)
class Sweep:
    """One argument of the command line; `where` is the whole of it, `text` what is right of its `=`."""

    where: str
    text: str

    def entry(self) -> Entry | None:
        """Type and settings of the parameter that the text means; None where it is a plain value.

        Raises ConfigError, with the text, the position in it (from 1) and what is legal there.
        """
        whole, is_call = Piece(self.text, 0), _CALL.match(self.text) is not None
        if not is_call and "," not in self.text:
            return None
        pieces = self._split(whole)
        if len(pieces) > 1:
            return self._choice(pieces)
        return self._call(whole, log=False) if is_call else None

    def error(self, start: int, found: str, legal: str, suggestion: str | None = None) -> ConfigError:
        """The error of a mistake that begins at the position `start` of the text, counted from 0."""
        place = f"{show(self.text)}, character {start + 1}"
        return ConfigError(Problem(self.where, f"{place}: {found}", legal, suggestion))

    def _call(self, piece: Piece, log: bool) -> Entry:
        match = _CALL.match(piece.text)
        legal = listing(FUNCTIONS.values())
        if match is None:
            raise self.error(piece.start, f"{show(piece.text.strip())} is no range of values", legal)
        name, start = match[1], piece.start + match.start(1)
        if name not in FUNCTIONS:
            quoted = f"{legal}; or quotes around a text: \"'{self.text.strip()}'\""
            raise self.error(start, f"there is no function {name!r}", quoted, did_you_mean(name, FUNCTIONS))
        closing = next(at for at, depth in self._scan(piece, match.end() - 1) if depth == 0)
        after = piece.text[closing + 1 :]
        if after.strip():
            raise self.error(piece.start + closing + 1, f"{show(after.strip())} stands behind {name}(...)", "nothing")
        inside = Piece(piece.text[match.end() : closing], piece.start + match.end())
        arguments = self._split(inside)
        if name == "interval":
            return self._interval(start, arguments, log)
        if name == "range":
            return self._range(start, arguments, log)
        if name == "choice":
            if log:
                raise self.error(start, "choices have no logarithmic scale", "tag(log, interval(...) or range(...))")
            return self._choice(arguments)
        if len(arguments) < 2:
            raise self.error(start, "tag needs a tag and what it is for", FUNCTIONS["tag"])
        for tag in arguments[:-1]:
            if tag.text.strip() != "log":
                raise self.error(tag.start, f"there is no tag {show(tag.text.strip())}", "log")
        return self._call(arguments[-1], log=True)

    def _choice(self, elements: list[Piece]) -> Entry:
        choices = [self._element(piece) for piece in elements]
        for index, choice in enumerate(choices):
            if choice in choices[:index]:
                raise self.error(elements[index].start, f"{show(choice)} is given twice", "each value once")
        return {"type": "categorical", "settings": {"choices": choices}}

    def _interval(self, start: int, arguments: list[Piece], log: bool) -> Entry:
        given = self._numbers("interval", start, arguments, ("start", "end"), 2)
        low, high = given["start"], given["end"]
        if low > high:
            raise self.error(arguments[0].start, f"{show(low)} is greater than {show(high)}", FUNCTIONS["interval"])
        if log and low <= 0:
            raise self.error(arguments[0].start, f"{show(low)} has no place on a logarithmic scale", "more than 0")
        return {"type": "float", "settings": {"low": low, "high": high, **({"log": True} if log else {})}}

    def _range(self, start: int, arguments: list[Piece], log: bool) -> Entry:
        names = ("stop",) if len(arguments) == 1 else ("start", "stop", "step")
        given = self._numbers("range", start, arguments, names, len(names) - (len(names) > 1))
        first, stop, step = given.get("start", 0), given["stop"], given.get("step", 1)
        if step <= 0 or first >= stop:
            found = "the range is empty: the stop itself is not in it"
            raise self.error(start, found, "START < STOP, and STEP above 0")
        low, end, width = (Decimal(str(number)) for number in (first, stop, step))
        number = low + width * ((end - low) // width)
        number = number if number < end else number - width  # the stop itself is not in the range
        last = int(number) if isinstance(first, int) and isinstance(step, int) else float(number)
        if log and (first <= 0 or step != 1 or not isinstance(first, int)):
            raise self.error(start, "has no logarithmic scale", "whole numbers above 0, without a step")
        kind = "int" if all(isinstance(number, int) for number in (first, stop, step)) else "float"
        scale = {"log": True} if log else {} if kind == "int" and step == 1 else {"step": step}
        return {"type": kind, "settings": {"low": first, "high": last, **scale}}

    def _numbers(
        self, name: str, start: int, arguments: list[Piece], names: tuple[str, ...], least: int
    ) -> dict[str, int | float]:
        """The arguments by name; they may be given in order or as name=value."""
        if not least <= len(arguments) <= len(names):
            wanted = f"{least}" if least == len(names) else f"{least} to {len(names)}"
            raise self.error(start, f"{name} takes {wanted} numbers, not {len(arguments)}", FUNCTIONS[name])
        given: dict[str, int | float] = {}
        for index, piece in enumerate(arguments):
            named = _NAMED.match(piece.text)
            key, text = (named[1], named[2]) if named else (names[index], piece.text)
            if key not in names or key in given:
                near = did_you_mean(key, names)
                raise self.error(piece.start, f"{name} has no (other) {key!r}", listing(names), near)
            number = as_number(self._element(Piece(text, piece.start)))
            if number is None:
                raise self.error(piece.start, f"{show(text.strip())} is not a number", FUNCTIONS[name])
            given[key] = number
        for key in names[:least]:
            if key not in given:
                raise self.error(start, f"{name} lacks its {key}", FUNCTIONS[name])
        return given

    def _element(self, piece: Piece) -> Any:
        text = piece.text.strip()
        if not text:
            raise self.error(piece.start, "a value is missing", "a value on both sides of each comma")
        if _CALL.match(text):
            raise self.error(piece.start, f"{show(text)} stands where a value has to", "a value, or 'text' in quotes")
        try:
            return parse_yaml(text, self.where)
        except ConfigError:
            raise self.error(piece.start, f"{show(text)} is no value", "a value as in YAML") from None

    # --- brackets and quotes ---

    def _split(self, piece: Piece) -> list[Piece]:
        """At the commas that stand in no brackets and no quotes."""
        commas = [at for at, depth in self._scan(piece, 0) if depth == 0 and piece.text[at] == ","]
        cuts = pairwise([-1, *commas, len(piece.text)])
        return [Piece(piece.text[before + 1 : end], piece.start + before + 1) for before, end in cuts]

    def _scan(self, piece: Piece, begin: int) -> Iterator[tuple[int, int]]:
        """The position of each comma and closing bracket, with the number of brackets that are open behind it."""
        stack: list[tuple[str, int]] = []
        quote: tuple[str, int] | None = None
        for at, char in enumerate(piece.text[begin:], begin):
            if quote:
                quote = None if char == quote[0] else quote
            elif char in "'\"" and not piece.text[:at].rstrip()[-1:].isalnum():
                quote = (char, at)
            elif char in _BRACKETS:
                stack.append((_BRACKETS[char], at))
            elif char in ")]}":
                if not stack or stack.pop()[0] != char:
                    raise self.error(piece.start + at, f"{char!r} closes nothing", "a bracket that opens before it")
                yield at, len(stack)
            elif char == ",":
                yield at, len(stack)
        if quote or stack:
            char, at = quote or stack[-1]
            raise self.error(piece.start + at, f"{piece.text[at]!r} is never closed", f"{char} behind it")


# --- the changes ---


@dataclass
class Overridden:
    """Both files with the command line's changes, and where each change came from."""

    hyperparameters: dict[str, Any]
    model: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Any]:
        """The entries of `optuna: parameters`; an empty mapping where there are none."""
        optuna = self.hyperparameters.get("optuna")
        parameters = optuna.get("parameters") if isinstance(optuna, dict) else None
        return parameters if isinstance(parameters, dict) else {}


def apply(target: Overridden, overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Make the changes in `target`; flags win over `section:key=value`. Mistakes go to `target.problems`."""
    for override in overrides:
        try:
            _apply_override(target, override)
        except ConfigError as error:
            target.problems.extend(error.problems)
    for name, value in flags.items():
        if value is None:
            continue
        try:
            source = f"--{name.replace('_', '-')} {value}"
            if name in LIST_FLAGS and isinstance(value, str) and "," in value and not value.startswith("["):
                value = [part.strip() for part in value.split(",")]
            elif isinstance(value, str) and name not in TEXT_FLAGS:
                value = parse_yaml(value, key_path("optuna", name))
            _set_hyperparameter(target, "optuna", name, value, source)
        except ConfigError as error:
            target.problems.extend(error.problems)


def _apply_override(target: Overridden, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        legal = "section:key=value, for example optuna:n_trials=50 or optimizer:learning_rate=0.1"
        raise ConfigError(Problem(override, "is not an override", legal))
    path = _spelled(path, target)
    section, _, rest = path.partition(":")
    if section in SECTIONS:
        value, optuna = parse_yaml(text, override), target.hyperparameters.get("optuna")
        kind, colon, _ = rest.partition(":")
        if colon and kind in DEFAULTS and isinstance(optuna, dict):
            # An argument of the sampler or pruner: its class comes first, where the file names none.
            strategy = optuna.get(kind)
            if strategy is None or isinstance(strategy, str):
                optuna[kind] = {"type": strategy or DEFAULTS[kind]}
        _set_hyperparameter(target, section, rest, value, override)
        return
    sweep = Sweep(override, text).entry()
    value = None if sweep is not None else parse_yaml(text, override)
    if not exists(target.model, path) and (sweep is None or path not in target.parameters):
        suggestion = nearest(target.model, path)
        if suggestion is None and (near := did_you_mean(section, SECTIONS)):
            suggestion = f"{near}:{rest}" if rest else near
        legal = "a colon path into the model YAML, or log:..., slurm:..., optuna:..."
        problem = missing(target.model, path)
        raise ConfigError(Problem(problem.where, problem.found, legal, suggestion))
    if sweep is not None:
        _search(target, path, sweep)
    else:
        target.parameters.pop(path, None)  # a parameter of the same path is searched no more
        target.model = substitute(target.model, {path: value})


def _spelled(path: str, target: Overridden) -> str:
    """The colon path that a path means. What the model config has goes before all else."""
    colons = path.replace(".", ":")
    for candidate in (path, colons, colons.removeprefix("model:")):
        if exists(target.model, candidate):
            return candidate
    if path.partition(":")[0] in SECTIONS:
        return path
    if colons.partition(":")[0] in DEFAULTS:
        return f"optuna:{colons}"
    by_name = {_name(key, entry): key for key, entry in target.parameters.items()}
    return by_name.get(path, colons)


def _name(key: str, entry: Any) -> str:
    """The name in the study of the parameter with this entry."""
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    return str(settings.get("name", key)) if isinstance(settings, Mapping) else str(key)


def _search(target: Overridden, path: str, entry: Mapping[str, Any]) -> None:
    """Add a parameter, or replace the one there.

    What the other had besides type and settings stays: its name in the study, its dependency.
    """
    optuna = target.hyperparameters.setdefault("optuna", {})
    if not isinstance(optuna, dict) or not isinstance(optuna.setdefault("parameters", {}), dict):
        return
    holder = lookup(target.model, path) if exists(target.model, path) else None
    holder = holder if isinstance(holder, Mapping) else {}
    inner = holder.get(SEARCH_MARK)
    before = optuna["parameters"].get(path)
    if not isinstance(before, dict):
        inner = inner if isinstance(inner, Mapping) else {}
        before = {key: value for key, value in inner.items() if key == "dependency"}
    optuna["parameters"][path] = {**before, **entry, "settings": {"name": _name(path, before), **entry["settings"]}}
    if SEARCH_MARK in holder:
        target.model = substitute(target.model, {path: None})


def _set_hyperparameter(target: Overridden, section: str, rest: str, value: Any, source: str) -> None:
    """Set the key at a path below a section; mappings on the way are made where there are none yet."""
    segments = _segments(target.hyperparameters, section, rest)
    container: Any = target.hyperparameters
    for index, segment in enumerate(segments[:-1]):
        where = key_path(*segments[: index + 1])
        inner = _step(container, segment)
        if inner is None or inner is True:
            inner = {}
            _put(container, segment, inner, where, source)
        if not isinstance(inner, dict | list):
            found = "holds a single value, and no keys"
            raise ConfigError(Problem(f"{where} (from {source})", found, f"{where} itself"))
        container = inner
    *above, key = segments
    if isinstance(container, dict):
        for other in [name for name in container if name != key and _same(above, str(name), key)]:
            del container[other]
    _put(container, key, value, key_path(*segments), source)
    # The key path that a problem of this key will have.
    told = ALIASES.get(key, key) if above == ["optuna"] else key
    target.sources[key_path(*above, told)] = source


def _segments(data: Mapping[str, Any], section: str, rest: str) -> list[str]:
    """Split a path where keys hold colons themselves: the longest key that exists is taken."""
    segments, value = [section], data.get(section)
    parts = rest.split(":") if rest else []
    while parts:
        known = value if isinstance(value, Mapping) else {}
        taken = next((n for n in range(len(parts), 0, -1) if ":".join(parts[:n]) in known), 1)
        if ":".join(parts[:taken]) not in known and segments == ["optuna", "parameters"]:
            # The key of a new parameter reaches to its own keys.
            taken = next((n for n, part in enumerate(parts) if n and part in PARAMETER_KEYS), len(parts))
        segment = ":".join(parts[:taken])
        if segments == ["slurm"] and isinstance(value, list) and (position := _position(value, segment)) is not None:
            segment = section_name(value[position], position)
        segments.append(segment)
        value = _step(value, segment)
        parts = parts[taken:]
    return segments


def _step(value: Any, key: str) -> Any:
    """What a mapping or list has at a key or position, or None."""
    if isinstance(value, list):
        position = _position(value, key)
        return None if position is None else value[position]
    return value.get(key) if isinstance(value, Mapping) else None


def _position(items: Sequence[Any], key: str) -> int | None:
    """Where a list has what is called so, as sections are, or what stands at that position; None: nowhere."""
    names = [section_name(item, position) for position, item in enumerate(items)]
    if key in names:
        return names.index(key)
    return int(key) if key.isdecimal() and int(key) < len(items) else None


def _put(container: Any, key: str, value: Any, where: str, source: str) -> None:
    if isinstance(container, dict):
        container[key] = value
        return
    is_section = where == f"slurm: {key}"  # which is in the file, or nowhere; other lists may become longer
    if (position := _position(container if is_section else [*container, None], key)) is not None:
        container[position : position + 1] = [value]
    else:
        found, legal = "is not a position in the list", f"a position from 0 to {len(container)}"
        if is_section:
            names = listing(section_name(item, position) for position, item in enumerate(container))
            found, legal = "slurm is a list, and has no such section", f"slurm:NAME:key=value, with one of {names}"
        raise ConfigError(Problem(f"{where} (from {source})", found, legal))


def _same(above: Sequence[str], one: str, other: str) -> bool:
    """Whether two keys are two names of one: `name` and `study_name`, `t` and `time`."""
    if list(above) == ["optuna"]:
        return ALIASES.get(one, one) == ALIASES.get(other, other)
    in_batch = above[:1] == ["slurm"] and above[-1:] == ["batch"]
    return in_batch and long_name(one) is not None and long_name(one) == long_name(other)
