"""A training that asks for more devices than its slot has is told of it, at once and with what to write instead."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from aimlhpo.objective.outcome import OutcomeError

_HINT = "`slurm: gpus_per_worker: {}` gives each trial so many, with a process for each"
_MISSING_DEVICE = re.compile(
    r"invalid device (ordinal|id)\b|your machine only has: \[|this machine only has \d+ GPUs"
    r"|only \d+ are currently available|does not match the world size",
    re.IGNORECASE,
)


class TooManyDevices(OutcomeError):
    """The training wants to start processes for devices that its slot does not have."""

    def __init__(self, wanted: int, there: int) -> None:
        asked = f"asks for {wanted} devices where its slot has {there}"
        hint = _HINT.format(wanted)
        super().__init__(f"the training {asked}; {hint}", f"the training {asked}.\n    {hint}.")

    def __reduce__(self) -> Any:
        return OutcomeError, (self.cause, str(self))


def hint_for(text: str) -> str:
    """What to do where the text of an exception says that a device is missing; else nothing."""
    return f"; {_HINT.format('N')}" if _MISSING_DEVICE.search(text) else ""


class LightningGuard(MetaPathFinder):
    """Has Lightning refuse `devices=2` in a worker with one device.

    It would start the program again for each further device, and wait for half an hour for what such a copy of a worker
    can never do. Lightning asks the class that is patched here, when it is imported, only where no launcher (such as
    torchrun, or rank 0) has said that there are several ranks; how many it wants, it says when its Trainer is made.
    """

    _PATCHED = ("lightning.fabric", "lightning_fabric")

    @classmethod
    def install(cls) -> None:
        """Watch for the import. Costs nothing once it has been."""
        sys.meta_path.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.endswith(".plugins.environments.lightning") or not fullname.startswith(self._PATCHED):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                self._patch(getattr(module, "LightningEnvironment", None))

            setattr(spec.loader, "exec_module", execute_and_patch)  # noqa: B010 -- of this one module's loader
        return spec

    @staticmethod
    def _patch(environment: Any) -> None:
        set_world_size = getattr(environment, "set_world_size", None)
        if set_world_size is None:  # another version of Lightning: its own words come later
            return

        def refuse_more(self: Any, size: int) -> None:
            ranks = int(os.environ.get("WORLD_SIZE", "1"))
            if size > ranks:
                raise TooManyDevices(size, ranks)
            set_world_size(self, size)

        environment.set_world_size = refuse_more
