"""What a Python script calls that is run by a study with `command`. Loads next to nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

MARK = b"\x1e"  # stands in front of what `report` writes, also behind an unfinished line


def report(**values: Any) -> None:
    """Tell the study how the training stands: `report(epoch=3, val_loss=0.2)`. Does nothing outside of a study.

    Args:
        values: metrics, and `step`, `epoch` or `iteration`: a whole number from 0. With one of these and the study's
            metric it is a report that the pruner sees; the last value of each name is kept with the trial. Scalars of
            NumPy, torch and TensorFlow count as numbers.

    Raises TypeError for what JSON cannot hold.
    """
    if "AIMLHPO_TRIAL" not in os.environ:
        return
    line = json.dumps(values, default=_scalar)
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()
    data = MARK + f"{line}\n".encode()
    while data:  # past sys.stdout, which the script may have replaced
        data = data[os.write(1, data) :]


def checkpoint_dir() -> Path:
    """The trial's own directory: a trial that was interrupted finds in it what its earlier attempts wrote.

    Returns its path, where the directory has been made; outside of a study, that of a new temporary directory.
    """
    given = os.environ.get("AIMLHPO_CHECKPOINT_DIR")
    if given is None:
        return Path(tempfile.mkdtemp(prefix="aimlhpo-checkpoint-"))
    path = Path(given)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _scalar(value: Any) -> Any:
    """The number inside a scalar of a framework."""
    array = value.numpy() if not hasattr(value, "item") and hasattr(value, "numpy") else value
    if hasattr(array, "item") and getattr(array, "size", None) is not None:
        return array.item()
    raise TypeError(f"report takes numbers, texts and lists of them, not {value!r} ({type(value).__name__})")
