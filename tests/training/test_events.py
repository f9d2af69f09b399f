"""Event files hold every step once, also after a training was killed and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from glraster.training.log import EventLog, read_events


def points(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every curve, in the order of the files."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for _, event in read_events(path):
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value if not v.HasField("image")]
    return found


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
    events = [event for _, event in read_events(path)]
    assert events[0].file_version == "brain.Event:2"
    picture = events[-1].summary.value[0]
    assert (picture.tag, picture.image.height, picture.image.width) == ("validation", 20, 30)
    assert picture.image.encoded_image_string == b"\x89PNG picture"


@pytest.mark.parametrize("torn", [0, 3, 20])
def test_steps_that_are_done_again_are_dropped(tmp_path: Path, torn: int) -> None:
    first = EventLog(tmp_path, 0)
    for step in range(1, 6):
        first.add_scalars(step, {"loss/total": float(step)})
    first.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: -torn or None])
    second = EventLog(tmp_path, 3)
    for step in (4, 5, 6):
        second.add_scalars(step, {"loss/total": 10.0 * step})
    second.close()
    assert points(tmp_path) == [(s, "loss/total", float(s) if s < 4 else 10.0 * s) for s in range(1, 7)]


def test_records_carry_their_checksums(tmp_path: Path) -> None:
    """TensorBoard refuses records without: the file is the library's own bytes after a resume too."""
    log = EventLog(tmp_path, 0)
    log.add_scalars(1, {"a": 1.0})
    log.add_scalars(2, {"a": 2.0})
    log.close()
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    EventLog(tmp_path, 1).close()
    assert path.read_bytes() == before[: len(path.read_bytes())]
    assert len(path.read_bytes()) < len(before)
