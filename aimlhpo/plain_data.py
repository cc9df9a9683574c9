"""Values that leave the process they were made in: plain data, which any other process can read."""

from __future__ import annotations

import json
from typing import Any


def plain(value: Any) -> Any:
    """What JSON makes of the value: of an enumeration of strings a string, of a tuple a list.

    Raises TypeError for what JSON cannot hold, ValueError for what holds itself.
    """
    return json.loads(json.dumps(value))
