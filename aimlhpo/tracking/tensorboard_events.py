"""The content of TensorBoard's event files. Imports tensorboard, so it is loaded only where that is asked for.

Events are made with TensorBoard's own protocol classes. Its writers would load TensorFlow where that is installed.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.metadata import (
    NULL_TENSOR,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    create_summary_metadata,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from aimlhpo.tracking.run import Run, text_of

Point = tuple[str, int]
"""Tag and step of a value."""

_HEADER, _CHECKSUM = 12, 4  # bytes of a record before and after its data
_STATUS = {"COMPLETE": 1, "PRUNED": 1, "FAIL": 2}  # of TensorBoard: success, failure


def values_of_run(run: Run, reported: str) -> dict[Point, Summary.Value]:
    """Everything that the run's files should hold; `reported` is the tag of its reports."""
    scalars = {(reported, step): value for step, value in run.reports.items()}
    if run.is_finished:
        scalars |= {(name, 0): value for name, value in run.metrics.items()}
    values = {point: Summary.Value(tag=point[0], simple_value=value) for point, value in scalars.items()}
    plugin_data = {}
    if run.parameters:  # the trial's row in the hparams table, a group of its own
        start = SessionStartInfo(group_name=f"trial-{run.number:05d}", start_time_secs=run.began or 0.0)
        for name, value in run.parameters.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = text_of(value)
        plugin_data[SESSION_START_INFO_TAG] = HParamsPluginData(session_start_info=start)
    if run.is_finished:
        end = SessionEndInfo(status=_STATUS[run.state], end_time_secs=run.ended or 0.0)
        plugin_data[SESSION_END_INFO_TAG] = HParamsPluginData(session_end_info=end)
    for tag, content in plugin_data.items():
        values[tag, 0] = Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)
    return values


def records_of_values(run: Run, values: Mapping[Point, Summary.Value], with_version: bool) -> bytes:
    """The values as records of an event file; `with_version` is for the beginning of a file."""
    now = run.ended or time.time()
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    if with_version:
        records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for (_, step), value in values.items():
        records.write(Event(wall_time=now, step=step, summary=Summary(value=[value])).SerializeToString())
    return buffer.getvalue()


def read_points(folder: Path) -> Iterator[Point]:
    """What is in the event files of a trial. A killed writer may have left a torn record at the end of one."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, position = file.read_bytes(), 0
        while position + _HEADER <= len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            begin = position + _HEADER
            position = begin + length + _CHECKSUM
            if position <= len(data):
                event = Event.FromString(data[begin : begin + length])
                yield from ((value.tag, event.step) for value in event.summary.value)
