"""A training's curves and pictures for TensorBoard, one run per stage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from glraster.files import replacing


class EventLog:
    """The event files of one stage.

    Written by the caller's thread: a full disk is an error here, and not silence. Steps after `step` that an earlier
    process left are dropped: a resumed training does them again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("events.out.tfevents.*")):
            _drop_after(path, step)
        # names hold the second, in which a process may start twice, and are read in their order
        self._writer = EventsWriter(str(folder / "events"), f".{step:09d}.{os.getpid()}")

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to curves."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step, Summary(value=points))

    def add_picture(self, step: int, tag: str, png: Path, size: tuple[int, int]) -> None:
        """Add a PNG of `size` (height, width)."""
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png.read_bytes())
        self._add(step, Summary(value=[Summary.Value(tag=tag, image=image)]))

    def flush(self) -> None:
        """Bring everything to the file."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, summary: Summary) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def read_events(path: Path) -> Iterator[tuple[bytes, Event]]:
    """The whole records of an event file, as bytes and as what they say; a torn end is left out.

    A record is the length of the event (8 bytes), its checksum (4), the event, and its checksum (4).
    """
    with path.open("rb") as stream:
        while len(head := stream.read(12)) == 12:
            length = int.from_bytes(head[:8], "little")
            body = stream.read(length + 4)
            if len(body) < length + 4:
                return
            yield head + body, Event.FromString(body[:length])


def _drop_after(path: Path, step: int) -> None:
    kept = b"".join(record for record, event in read_events(path) if event.step <= step)
    with replacing(path) as beside:
        beside.write_bytes(kept)
