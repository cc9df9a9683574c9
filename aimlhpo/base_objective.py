"""`from aimlhpo.base_objective import *`, as objectives written for echo-opt begin.

The same as `from aimlhpo import BaseObjective`; only user code imports this.
"""

from __future__ import annotations

from aimlhpo.objective.base import BaseObjective

__all__ = ["BaseObjective"]
