"""Distributed multi-GPU hyperparameter optimization on SLURM clusters, built on Optuna."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["BaseObjective", "__version__"]


def __getattr__(name: str) -> object:
    """Load what user code imports only when it is asked for, so that `import aimlhpo` stays fast."""
    if name == "BaseObjective":
        from aimlhpo.base_objective import BaseObjective

        return BaseObjective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
