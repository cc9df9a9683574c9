"""A training that asks for more devices than its slot has is told of it, at once and with what to write instead."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from aimlhpo.objective.base import OutcomeError

_HINT = "`slurm: gpus_per_worker: {}` gives each trial so many, with a process for each"
_MISSING_DEVICE = re.compile(
    r"invalid device (ordinal|id)\b|your machine only has: \[|this machine only has \d+ GPUs"
    r"|only \d+ are currently available|does not match the world size",
    re.IGNORECASE,
)


def hint_for(text: str) -> str:
    """What to do where the text of an exception says that a device is missing; else nothing."""
    return f"; {_HINT.format('N')}" if _MISSING_DEVICE.search(text) else ""


class LightningGuard(MetaPathFinder):
    """Has Lightning refuse to start processes: for devices that the slot does not have, or beside the ranks.

    With `devices=2` in a worker with one device, Lightning would start the program again, and wait for half an hour for
    what such a copy of a worker can never do. It has a class for the case that nobody (torchrun, or rank 0) has started
    the processes already, and tells that class, when a Trainer is made, how many it wants: there it is stopped. The
    strategies that spawn ask nobody, and are stopped when they do. Both are patched when they are imported; a version
    of Lightning without them goes its own way.
    """

    _PACKAGES = ("lightning.", "lightning_fabric.", "pytorch_lightning.")

    @classmethod
    def install(cls) -> None:
        """Watch for the import. Costs nothing once it has been."""
        sys.meta_path.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patches = (patch for name, patch in _PATCHES.items() if fullname.endswith(name))
        patch = next(patches, None) if fullname.startswith(self._PACKAGES) else None
        spec = PathFinder.find_spec(fullname, path, target) if patch is not None else None
        if patch is not None and spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                patch(module)

            setattr(spec.loader, "exec_module", execute_and_patch)  # noqa: B010 -- of this one module's loader
        return spec


def _refuse_more_devices(module: Any) -> None:
    environment = getattr(module, "LightningEnvironment", None)
    set_world_size = getattr(environment, "set_world_size", None)
    if environment is None or set_world_size is None:
        return

    def refuse_more(self: Any, size: int) -> None:
        there = _ranks()
        if size > there:
            asked = f"the training asks for {size} devices where its slot has {there}"
            hint = _HINT.format(size)
            raise OutcomeError(f"{asked}; {hint}", f"{asked}.\n    {hint}.")
        set_world_size(self, size)

    environment.set_world_size = refuse_more


def _refuse_spawning(module: Any) -> None:
    launcher = getattr(module, "_MultiProcessingLauncher", None)
    launch = getattr(launcher, "launch", None)
    if launcher is None or launch is None:
        return

    def refuse(self: Any, *arguments: Any, **named: Any) -> Any:
        if _ranks() > 1:
            problem = f'the training starts processes beside its {_ranks()} ranks; write strategy="ddp"'
            raise OutcomeError(problem, problem)
        return launch(self, *arguments, **named)

    launcher.launch = refuse


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    ".plugins.environments.lightning": _refuse_more_devices,
    ".strategies.launchers.multiprocessing": _refuse_spawning,
}
