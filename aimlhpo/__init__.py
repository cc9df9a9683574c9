"""Distributed multi-GPU hyperparameter optimization on SLURM clusters, built on Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimlhpo.base_objective import BaseObjective
    from aimlhpo.command.argparser import add_to_argparse
    from aimlhpo.command.script import checkpoint_dir, report

__version__ = "0.1.0"
__all__ = ["BaseObjective", "__version__", "add_to_argparse", "checkpoint_dir", "report"]

_HOMES = {
    "BaseObjective": "aimlhpo.base_objective",
    "add_to_argparse": "aimlhpo.command.argparser",
    "checkpoint_dir": "aimlhpo.command.script",
    "report": "aimlhpo.command.script",
}


def __getattr__(name: str) -> object:
    """Load what user code imports only when it is asked for, so that `import aimlhpo` stays fast."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
