"""Model configs in JSON: no key twice, and a mistake is shown with its line."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from aimlhpo.errors import ConfigError, Problem


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
