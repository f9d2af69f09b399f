"""Threads around the device, its waiting, its memory and its number format: none of them changes the map."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasters import hole, landscape, read, write_raster

from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet

H, W = 330, 300


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", landscape(H, W), mask=hole(H, W))


@contextmanager
def in_turn(items: Iterable[Any]) -> Iterator[Iterator[Any]]:
    yield iter(items)


@contextmanager
def at_once(write: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    yield write


@pytest.mark.parametrize("mode", ["global", "full"])
def test_threads_change_no_byte(mode, scene, tmp_path, model_file, run, monkeypatch):
    from glraster.segmentation import windows

    masks = []
    for name in ("threads", "one by one"):
        mask = tmp_path / f"{name}.tif"
        assert run("segment", scene, "-o", mask, "-m", model_file(mode)).code == 0
        masks.append(mask.read_bytes())
        monkeypatch.setattr(windows, "read_ahead", in_turn)
        monkeypatch.setattr(windows, "write_behind", at_once)
    assert masks[0] == masks[1]


def test_the_wait_of_the_device_is_told(scene, tmp_path, model_file, run):
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--json", "-v")
    result = json.loads(outcome.out)
    assert 0 < result["device_wait_share"] < 1
    assert 0 < result["windows_seconds"] < result["seconds"]
    (line,) = (line for line in outcome.err.splitlines() if "waited" in line)
    assert line.startswith(f"glraster: info: cpu waited {100 * result['device_wait_share']:.1f} % of ")


def test_slow_reading_shows_as_waiting(scene, tmp_path, model_file, run, monkeypatch):
    import time

    from glraster.raster.reader import Scene

    reading = Scene.read

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        return reading(*arguments)

    monkeypatch.setattr(Scene, "read", slowly)
    result = json.loads(run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--json").out)
    # nine windows are read, and the device can work during eight of the reads
    assert result["device_wait_share"] * result["windows_seconds"] > 0.4
    assert result["windows_seconds"] > 4.5


def test_a_resumed_run_with_nothing_left_does_not_wait(scene, tmp_path, model_file, run, monkeypatch):
    from glraster.raster.writer import CogWriter

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    call = ["segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--json"]
    with monkeypatch.context() as patched:
        patched.setattr(CogWriter, "finish", interrupted)
        assert run(*call).code == 130
    result = json.loads(run(*call, "--resume").out)
    assert (result["windows_reused"], result["windows_done"], result["device_wait_share"]) == (9, 0, 0)


class Small(FoldedGLNet):
    """A network on a device that holds one tile."""

    def tile_logits(self, thumbnail: torch.Tensor, tiles: Iterable[torch.Tensor], *others: Any) -> Any:
        def watched() -> Iterator[torch.Tensor]:
            for batch in tiles:
                if batch.shape[0] > 1:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                yield batch

        return super().tile_logits(thumbnail, watched(), *others)


def test_too_little_memory_takes_fewer_tiles_and_gives_the_same_map(
    scene, tmp_path, model_file, run, monkeypatch, caplog
):
    from glraster.segmentation import job as prepare

    assert run("segment", scene, "-o", tmp_path / "one.tif", "-m", model_file(), "--batch", 1).code == 0
    monkeypatch.setattr(prepare, "FoldedGLNet", Small)
    with caplog.at_level(logging.WARNING, "glraster"):
        outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert outcome.code == 0
    told = [record.message for record in caplog.records if "out of memory" in record.message]
    assert told == [f"cpu is out of memory; going on with {batch} tiles at a time" for batch in (4, 2, 1)]
    np.testing.assert_array_equal(read(tmp_path / "mask.tif"), read(tmp_path / "one.tif"))


def test_a_batch_that_was_asked_for_is_not_changed(scene, tmp_path, model_file, run, monkeypatch):
    from glraster.segmentation import job as prepare

    monkeypatch.setattr(prepare, "FoldedGLNet", Small)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--batch", 2)
    assert outcome.code == 1
    assert "cpu is out of memory; use a smaller --batch or --tile" in outcome.err


@pytest.mark.parametrize(("native", "agreement"), [(True, 0.995), (False, 0.995), (True, 0.98), (True, None)])
def test_precision_follows_hardware_and_model_but_for_published_figures(
    native, agreement, scene, tmp_path, model_file, run, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    model = model_file("full", context_px=320, bfloat16_agreement=agreement)
    short = native and agreement == 0.995
    for merge, expected in (("smooth", "bfloat16" if short else "float32"), ("paper", "float32")):
        call = ["segment", scene, "-o", tmp_path / f"{merge}.tif", "-m", model, "--merge", merge, "--json"]
        assert json.loads(run(*call).out)["precision"] == expected


def test_the_folded_network_maps_as_the_plain_one(scene, tmp_path, model_file, run, monkeypatch):
    from glraster.segmentation import job as prepare

    call = ["segment", scene, "-m", model_file("full"), "--precision", "float32"]
    assert run(*call, "-o", tmp_path / "folded.tif").code == 0

    def plain(network: GLNet, *_: Any) -> GLNet:
        return network

    monkeypatch.setattr(prepare, "FoldedGLNet", plain)
    assert run(*call, "-o", tmp_path / "plain.tif").code == 0
    folded, expected = read(tmp_path / "folded.tif"), read(tmp_path / "plain.tif")
    assert len(np.unique(expected)) == 4
    assert (folded != expected).mean() < 1e-3
