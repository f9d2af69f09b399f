"""What the system says of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from glraster import process


def test_peak_memory_keeps_what_was_freed() -> None:
    block = bytearray(b"x") * (64 << 20)
    peak = process.peak_memory_bytes()
    assert peak >= len(block)
    del block
    assert process.peak_memory_bytes() > peak - 2**20  # the system counts in pages that it collects now and then


def test_peak_memory_is_what_is_held_now_where_nobody_keeps_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_STATUS", tmp_path / "absent")
    assert process.peak_memory_bytes() > 2**20


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: object())
    assert not process.keep_freed_memory()
