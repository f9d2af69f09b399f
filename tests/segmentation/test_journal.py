"""Parts are kept, found again, and never mixed with those of another run."""

import json
from pathlib import Path

import pytest

from glraster.errors import OutputError, ResumeError
from glraster.segmentation.journal import Journal

SETTINGS = {"model": "abc", "tile": 64}


def journal(
    folder: Path, settings: dict[str, object] = SETTINGS, *, resume: bool = False, overwrite: bool = False
) -> Journal:
    return Journal(folder, settings, resume=resume, overwrite=overwrite)


def interrupted(folder: Path) -> Path:
    """The folder as a run leaves it that finished one window."""
    with pytest.raises(KeyboardInterrupt), journal(folder):
        (folder / "window_0_0.npy").write_bytes(b"part")
        raise KeyboardInterrupt
    return folder


def test_finished_parts_outlive_an_interruption(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    with journal(folder, resume=True):
        assert (folder / "window_0_0.npy").read_bytes() == b"part"


def test_a_run_without_finished_parts_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), journal(tmp_path / "mask.tif.parts"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_parts_are_not_used_without_being_asked_for(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    with pytest.raises(ResumeError, match="--resume"), journal(folder):
        pass
    assert (folder / "window_0_0.npy").exists()


def test_overwrite_discards_parts(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    with journal(folder, overwrite=True):
        assert not (folder / "window_0_0.npy").exists()


def test_parts_of_other_settings_are_refused_and_the_change_named(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    with (
        pytest.raises(ResumeError, match="tile was 64, is 128"),
        journal(folder, {**SETTINGS, "tile": 128}, resume=True),
    ):
        pass
    assert (folder / "window_0_0.npy").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format": 1})])
def test_a_damaged_journal_is_refused(tmp_path: Path, text: str) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    (folder / "journal.json").write_text(text)
    with pytest.raises(ResumeError, match="damaged"), journal(folder, resume=True):
        pass


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "mask.tif.parts")
    (folder / "journal.json").write_text(json.dumps({"format": 99, "fingerprint": SETTINGS}))
    with pytest.raises(ResumeError, match="another version"), journal(folder, resume=True):
        pass


def test_two_processes_do_not_share_an_output(tmp_path: Path) -> None:
    folder = tmp_path / "mask.tif.parts"
    with journal(folder):
        (folder / "window_0_0.npy").write_bytes(b"part")
        with pytest.raises(ResumeError, match="another process"), journal(folder, resume=True):
            pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_strangers_folder_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "mask.tif.parts"
    folder.mkdir()
    (folder / "thesis.tif").write_text("years of work")
    with pytest.raises(ResumeError, match="in the way"), journal(folder, overwrite=overwrite):
        pass
    assert (folder / "thesis.tif").read_text() == "years of work"


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), journal(tmp_path / "absent" / "mask.tif.parts"):
        pass
