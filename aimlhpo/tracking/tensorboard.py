"""A directory of event files for each trial: scalars, and a row of TensorBoard's hparams table.

Events are made with TensorBoard's own protocol classes. Its writers would load TensorFlow where that is installed.
"""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.tracking.run import Run, text_of

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

_HEADER, _CHECKSUM = 12, 4  # bytes of a record before and after its data
_STATUS = {"COMPLETE": 1, "PRUNED": 1, "FAIL": 2}  # of TensorBoard: success, failure


@dataclass
class _Written:
    """What is in a trial's event files: tags with their steps; and the file that this process appends to."""

    points: set[tuple[str, int]] = field(default_factory=set)
    file: Path | None = None


class TensorboardTarget:
    """Writes each trial to a directory of its own under `directory`; `reported` is the tag of its reports."""

    def __init__(self, directory: Path, reported: str) -> None:
        self.name = f"tensorboard {directory}"
        self._directory, self._reported = directory, reported
        self._written: dict[int, _Written] = {}

    def load(self) -> None:
        import tensorboard.plugins.hparams.metadata
        import tensorboard.summary.writer.record_writer  # noqa: F401

    def open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._written.clear()

    def send(self, run: Run) -> None:
        folder = self._directory / f"trial-{run.number:05d}"
        if run.number not in self._written:
            self._written[run.number] = _Written(set(_points(folder)))
        known = self._written[run.number]
        new = {point: value for point, value in self._values(run).items() if point not in known.points}
        if new:
            self._append(folder, known, run, new)
            known.points.update(new)

    def conclude(self, state: Any) -> None:
        """Nothing: TensorBoard knows no studies."""

    def _values(self, run: Run) -> dict[tuple[str, int], Summary.Value]:
        """Everything that the run's files should hold, by tag and step."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG

        scalars = {(self._reported, step): value for step, value in run.reports.items()}
        if run.is_finished:
            scalars |= {(name, 0): value for name, value in run.metrics.items()}
        values = {point: Summary.Value(tag=point[0], simple_value=value) for point, value in scalars.items()}
        if run.parameters:
            values[SESSION_START_INFO_TAG, 0] = _session_start(run)
        if run.is_finished:
            values[SESSION_END_INFO_TAG, 0] = _session_end(run)
        return values

    def _append(self, folder: Path, known: _Written, run: Run, new: dict[tuple[str, int], Summary.Value]) -> None:
        """Write the values at the end of this process's own file: all of them or, on a full disk, none."""
        if known.file is None:
            folder.mkdir(exist_ok=True)
            known.file = folder / f"events.out.tfevents.{time.time():.6f}.{os.uname().nodename}.{os.getpid()}"
        with open(known.file, "ab", buffering=0) as file:
            begin = file.tell()
            data = _records(run, new, with_version=begin == 0)
            try:
                if file.write(data) != len(data):
                    raise OSError(f"{known.file}: no space left")
            except OSError:
                file.truncate(begin)
                raise


def _records(run: Run, values: dict[tuple[str, int], Summary.Value], with_version: bool) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = run.ended or time.time()
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    if with_version:
        records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for (_, step), value in values.items():
        records.write(Event(wall_time=now, step=step, summary=Summary(value=[value])).SerializeToString())
    return buffer.getvalue()


def _session_start(run: Run) -> Summary.Value:
    """The trial's row in the hparams table, a group of its own."""
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=f"trial-{run.number:05d}", start_time_secs=run.began or 0.0)
    for name, value in run.parameters.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = text_of(value)
    return _plugin_value(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _session_end(run: Run) -> Summary.Value:
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=_STATUS[run.state], end_time_secs=run.ended or 0.0)
    return _plugin_value(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _plugin_value(tag: str, content: Any) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    return Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)


def _points(folder: Path) -> Iterator[tuple[str, int]]:
    """Tags and steps in the event files of a trial."""
    from tensorboard.compat.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in _read_records(file.read_bytes()):
            event = Event.FromString(record)
            for value in event.summary.value:
                yield value.tag, event.step


def _read_records(data: bytes) -> Iterator[bytes]:
    """The whole records of an event file; a killed writer may have left a torn one at its end."""
    position = 0
    while position + _HEADER <= len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        begin = position + _HEADER
        position = begin + length + _CHECKSUM
        if position <= len(data):
            yield data[begin : begin + length]
