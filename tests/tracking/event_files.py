"""Event files as TensorBoard itself reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))  # TensorBoard's own word for: no TensorFlow

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from tensorboard.plugins.hparams import metadata  # noqa: E402


class EventFiles:
    """What TensorBoard finds in one trial's directory."""

    def __init__(self, directory: Path) -> None:
        self._found = EventAccumulator(str(directory)).Reload()

    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values, in the order of the files, by tag."""
        tags = self._found.Tags()["scalars"]
        return {tag: [(event.step, event.value) for event in self._found.Scalars(tag)] for tag in tags}

    def hparams(self) -> dict[str, Any]:
        """The trial's row in the hparams table; empty if it has none."""
        contents = self._contents()
        if metadata.SESSION_START_INFO_TAG not in contents:
            return {}
        info = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}

    def status(self) -> int | None:
        """How the trial has ended, in TensorBoard's numbers."""
        content = self._contents().get(metadata.SESSION_END_INFO_TAG)
        return None if content is None else metadata.parse_session_end_info_plugin_data(content).status

    def _contents(self) -> dict[str, bytes]:
        try:
            return dict(self._found.PluginTagToContent("hparams"))
        except KeyError:
            return {}
