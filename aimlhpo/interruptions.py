"""How often a trial was interrupted, and whether it gets anywhere: what is kept with it when it is given back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STOPPED_BY_USER = "stopped by user"
MOST_FRUITLESS = 5
"""What `max_interruptions` is where nobody says otherwise."""


def after(
    before: Mapping[str, Any] | None, cause: str, seconds: float, progress: list[float], gpus: float = 0.0
) -> dict[str, Any]:
    """The trial's history with one more interruption in it; `seconds` is what this attempt took on its `gpus`."""
    known = before or {"attempts": 0, "seconds": 0.0, "fruitless": 0, "progress": [0, 0]}
    moved = progress != known["progress"] or cause == STOPPED_BY_USER
    return {
        "attempts": known["attempts"] + 1,
        "seconds": known["seconds"] + seconds,
        "gpu_seconds": known.get("gpu_seconds", 0.0) + seconds * gpus,
        "cause": cause,
        "fruitless": 0 if moved else known["fruitless"] + 1,
        "progress": progress,
    }


def are_too_many(history: Mapping[str, Any], most: int) -> bool:
    """Whether the trial would only be interrupted again and again."""
    return bool(history["fruitless"] >= most)


def record(history: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a trial that is given up."""
    return {
        "cause": history["cause"],
        "error": f"interrupted {history['fruitless']} times in a row without a new report or checkpoint",
        "seconds": history["seconds"],
        "gpu_seconds": history["gpu_seconds"],
        "attempts": history["attempts"],
    }


def newest_file(directory: Path) -> float:
    """When anything in the directory last changed, in seconds since the epoch; 0 where there is none."""
    times = [0.0]
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                times.append(os.stat(os.path.join(folder, name)).st_mtime)
            except FileNotFoundError:  # replaced meanwhile
                continue
    return max(times)
