"""Model files from strangers: lengths that cannot be, descriptions that steer terminals, pickles in disguise."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.campaigns import load_benchmark
from hostile.confined import assert_one_line, confined
from hostile.meddling import meddle
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import landscape, write_raster

from glraster.errors import ModelError
from glraster.model.checkpoint import load, read_spec
from glraster.model.metadata import dump_spec, parse_spec


class Bomb:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark: object) -> None:
        self._command = f"touch {mark}"

    def __reduce__(self) -> object:
        return os.system, (self._command,)


def header_of(metadata: object, tensors: dict[str, object] | None = None) -> bytes:
    text = json.dumps({"__metadata__": {"glraster": metadata}, **(tensors or {})}).encode()
    return struct.pack("<Q", len(text)) + text


CASES = {
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header as long as allowed, absent": struct.pack("<Q", 100_000_000) + b"{}",
    "no header": b"",
    "deep lists": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "deep objects": struct.pack("<Q", 600_000) + b'{"a":' * 120_000,
    "a number of a million digits": struct.pack("<Q", 1_000_007) + b'{"a": ' + b"9" * 10**6 + b"}",
    "a list": struct.pack("<Q", 2) + b"[]",
    "metadata that is a number": struct.pack("<Q", 19) + b'{"__metadata__": 3}',
    "a spec that is a number": header_of(3),
    "a spec that is a list": header_of([1]),
    "a spec of deep lists": header_of("[" * 100_000),
    "a tensor that is a number": header_of("{}", {"w": 3}),
    "offsets that are text": header_of("{}", {"w": {"dtype": "F32", "shape": [1], "data_offsets": "ab"}}),
    "offsets of 2^62": header_of("{}", {"w": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
}


@pytest.mark.parametrize("name", CASES)
def test_heads_that_cannot_be_are_refused(name, tmp_path, run):
    path = tmp_path / "model.safetensors"
    path.write_bytes(CASES[name])
    outcome = run("model", "info", path)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "model.safetensors: " in outcome.err


def test_a_header_of_2_to_the_60_needs_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(CASES["a header of 2^60 bytes"])
    assert_one_line(confined(tmp_path, "model", "info", path), "not a model of glraster", memory_bytes=2**28)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pt", "model"])
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_a_pickle_in_disguise_is_refused_unopened(name, form, tmp_path, run):
    path, mark = tmp_path / name, tmp_path / "executed"
    bomb = pickle.dumps(Bomb(mark))
    if form == "pickle":
        path.write_bytes(bomb)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", bomb)
            archive.writestr("model/version", "3")
    scene = write_raster(tmp_path / "scene.tif", landscape(60, 60))
    for arguments in (
        ("model", "info", path),
        ("model", "describe", path),
        ("model", "import", "--global", path, "-o", tmp_path / "new.safetensors"),
        ("segment", scene, "-o", tmp_path / "mask.tif", "-m", path),
    ):
        outcome = run(*arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1), arguments
    assert not mark.exists()
    assert {p.name for p in tmp_path.iterdir()} == {name, "scene.tif"}


def rewritten(original: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a model file with another description."""
    content = original.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    spec = json.loads(header["__metadata__"]["glraster"])
    change(spec)
    header["__metadata__"]["glraster"] = json.dumps(spec)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07water", "a\nb", "\ud800", "\u2028", "\x9b31m"])
def test_a_class_name_cannot_steer_the_terminal(name, tmp_path, model_file, run):
    path = rewritten(model_file(), tmp_path / "model.safetensors", lambda spec: spec["classes"][0].update(name=name))
    outcome = run("model", "info", path)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "not a name" in outcome.err
    assert outcome.err.strip().isprintable()


def test_provenance_cannot_steer_the_terminal(tmp_path, model_file, run):
    def change(spec: dict[str, Any]) -> None:
        spec["provenance"] = {"licence": "\x1b[31mfree\ud800", "a\rb": ["\x1b"]}

    path = rewritten(model_file(), tmp_path / "model.safetensors", change)
    outcome = run("model", "info", path)
    assert outcome.code == 0
    assert "\\x1b[31mfree\\ud800" in outcome.out
    assert all(line.isprintable() for line in outcome.out.splitlines())
    described = run("model", "describe", path)
    assert described.code == 0
    assert json.loads(described.out)["properties"]["glraster:licence"] == "\x1b[31mfree\ud800"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_a_description_is_read_or_refused(data, model_file):
    record = json.loads(dump_spec(read_spec(model_file())))
    meddle(record, data, _JSON)
    with contextlib.suppress(ValueError):
        spec = parse_spec(json.dumps(record))
        assert dump_spec(parse_spec(dump_spec(spec))) == dump_spec(spec)


@pytest.mark.parametrize("target", ["model", "metadata", "style"])
def test_mutated_text_is_read_or_refused(target):
    counts = load_benchmark("fuzz").fuzz_text(target, first=0, runs=1500, seconds=60)
    assert counts["findings"] == []
    assert counts["tried"] > 500


def test_weights_are_not_allocated_before_the_head_is_checked(tmp_path, model_file):
    wide = {"width": 2**20}
    path = rewritten(model_file(), tmp_path / "model.safetensors", lambda spec: spec["architecture"].update(wide))
    with pytest.raises(ModelError, match="the weights do not fit the network"):
        load(path)
