"""What a training shows of itself: curves and pictures for TensorBoard, and a PNG of every validation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from glraster.config import LandClass
from glraster.files import replacing

_WIDTH_PX = 1536


class EventLog:
    """The event file of one process for one stage.

    A resumed training repeats the steps after `step` of an earlier process: the new file starts with the event that
    makes TensorBoard discard them, as `SummaryWriter(purge_step=...)` does. `SummaryWriter` itself writes in a thread
    of its own: on a full disk that thread prints a traceback and ends, and the training waits for it forever. This
    class writes in the caller's thread, so that a full disk is an error here.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which have seconds; a process may start twice in one
        self._writer = EventsWriter(str(folder / "events"), f".{step:09d}.{os.getpid()}")
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to curves."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))

    def add_picture(self, step: int, tag: str, png: Path, size: tuple[int, int]) -> None:
        """Add a PNG of `size` (height, width)."""
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png.read_bytes())
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def flush(self) -> None:
        """Write everything to the file."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)


@dataclass(frozen=True)
class ScoredWindow:
    """One scored window: image (bands, H, W) in the scene's values, truth and prediction (H, W) as class indexes."""

    image: npt.NDArray[Any]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]


def write_picture(path: Path, window: ScoredWindow, classes: tuple[LandClass, ...], scale: float) -> tuple[int, int]:
    """Write image, truth and prediction side by side as a PNG of at most 1536 px width.

    Args:
        path: the file, which appears whole or not at all.
        window: what to draw.
        classes: for their colours; pixels without a class are black.
        scale: the image value that is white.

    Returns:
        (height, width) of the picture.
    """
    step = max(1, -(-3 * window.image.shape[2] // _WIDTH_PX))
    bands = window.image[[0, 1, 2] if len(window.image) >= 3 else [0, 0, 0], ::step, ::step]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = [c.color for c in classes]
    pictures = [np.clip(bands * (255 / scale), 0, 255).astype(np.uint8)]
    pictures += [colours[labels[::step, ::step]].transpose(2, 0, 1) for labels in (window.truth, window.prediction)]
    joined = np.concatenate(pictures, axis=2)
    height, width = joined.shape[1:]
    form = {"driver": "PNG", "count": 3, "dtype": "uint8", "height": height, "width": width}
    with replacing(path) as beside, rasterio.open(beside, "w", **form) as png:
        png.write(joined)
    return height, width
