"""Distributed multi-GPU hyperparameter optimization on SLURM clusters, built on Optuna."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimlhpo.cli.notebook import optimize
    from aimlhpo.config.command import add_to_argparse
    from aimlhpo.objective.base import BaseObjective
    from aimlhpo.objective.script import checkpoint_dir, report
    from aimlhpo.results.opened import open_study

__version__ = "0.1.0"
__all__ = ["BaseObjective", "__version__", "add_to_argparse", "checkpoint_dir", "open_study", "optimize", "report"]

_HOMES = {
    "BaseObjective": "aimlhpo.objective.base",
    "add_to_argparse": "aimlhpo.config.command",
    "checkpoint_dir": "aimlhpo.objective.script",
    "open_study": "aimlhpo.results.opened",
    "optimize": "aimlhpo.cli.notebook",
    "report": "aimlhpo.objective.script",
}


def __getattr__(name: str) -> object:
    """Load what user code imports only when it is asked for, so that `import aimlhpo` stays fast."""
    if name in _HOMES:
        with warnings.catch_warnings():
            # Optuna's progress bars, which nothing here shows, ask for widgets in a notebook that has none.
            warnings.filterwarnings("ignore", "IProgress not found")
            return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
