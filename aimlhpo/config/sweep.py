"""Hydra's sweep grammar for the command line: from `interval(0.1, 1)` or `a,b` to a parameter of the search space.

sweep    = element "," element ...  |  function
function = choice(ELEMENT, ...)  |  range([START,] STOP [, STEP])  |  interval(START, END)
         | tag(log, FUNCTION)
element  = a number, a word, 'text', "text", [a list] or {a mapping}, as in YAML
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from aimlhpo.config.yaml import parse_yaml
from aimlhpo.errors import ConfigError, Problem, did_you_mean, listing, show
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
