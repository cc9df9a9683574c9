"""Reporting and pruning from inside a framework's training loop. Only user code imports these.

    torch       report_or_prune, for a plain training loop
    keras       KerasPruningCallback
    lightning   LightningPruningCallback
    decision    what these share

Each module imports its own framework and no other; the names can also be imported from here, which loads the module
when it is asked for one.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "KerasPruningCallback": "aimlhpo.callbacks.keras",
    "LightningPruningCallback": "aimlhpo.callbacks.lightning",
    "report_or_prune": "aimlhpo.callbacks.torch",
}
__all__ = ["KerasPruningCallback", "LightningPruningCallback", "report_or_prune"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
