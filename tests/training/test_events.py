"""A training's events show every step once in TensorBoard, also after it was killed and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from glraster.training.log import EventLog


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, as TensorBoard reads them: up to a torn record, and none with a wrong checksum.

    A record is the length of the event (8 bytes), its checksum (4), the event, and its checksum (4).
    """
    content = path.read_bytes()
    while len(content) >= 12:
        length = int.from_bytes(content[:8], "little")
        head, body = content[:12], content[12 : 12 + length + 4]
        if len(body) < length + 4:
            return
        for part, checksum in ((head[:8], head[8:]), (body[:-4], body[-4:])):
            crc = crc32c(part)
            masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            assert masked == int.from_bytes(checksum, "little")
        yield Event.FromString(body[:-4])
        content = content[12 + length + 4 :]


def points(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every curve as TensorBoard shows it: a new session discards the steps from its own on."""
    shown: list[tuple[int, str, float]] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in read_events(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                shown = [point for point in shown if point[0] < event.step]
            shown += [(event.step, v.tag, v.simple_value) for v in event.summary.value if not v.HasField("image")]
    return shown


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "joint", 0)
    for step in (1, 2):
        log.add_scalars(step, {"loss/total": step / 4, "iou/water": 0.5})
    (tmp_path / "x.png").write_bytes(b"\x89PNG picture")
    log.add_picture(2, "validation", tmp_path / "x.png", (20, 30))
    log.close()
    assert points(tmp_path / "joint") == [
        (step, tag, value) for step in (1, 2) for tag, value in (("loss/total", step / 4), ("iou/water", 0.5))
    ]
    (path,) = (tmp_path / "joint").iterdir()
    events = list(read_events(path))
    assert events[0].file_version == "brain.Event:2"
    picture = events[-1].summary.value[0]
    assert (picture.tag, picture.image.height, picture.image.width) == ("validation", 20, 30)
    assert picture.image.encoded_image_string == b"\x89PNG picture"


@pytest.mark.parametrize("torn", [0, 3, 20])
@pytest.mark.parametrize("resumed", [0, 3])
def test_repeated_steps_are_shown_once(tmp_path: Path, torn: int, resumed: int) -> None:
    first = EventLog(tmp_path, 0)
    for step in range(1, 6):
        first.add_scalars(step, {"loss/total": float(step)})
    first.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: -torn or None])
    second = EventLog(tmp_path, resumed)
    for step in range(resumed + 1, 7):
        second.add_scalars(step, {"loss/total": 10.0 * step})
    second.close()
    assert points(tmp_path) == [(s, "loss/total", float(s) if s <= resumed else 10.0 * s) for s in range(1, 7)]
