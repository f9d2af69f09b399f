"""Threads around the device, its waiting, its memory and its number format: none of them changes the map."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasters import hole, landscape, read, write_raster

import glraster.segmentation.job
import glraster.segmentation.windows
import glraster.segmentation.write_map
from glraster.errors import OutputError
from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet
from glraster.raster.source import gdal_session
from glraster.segmentation.job import segment_job
from glraster.segmentation.parts import PartFolder
from glraster.segmentation.predict import Predictor
from glraster.segmentation.segment import segment
from glraster.segmentation.windows import LocalWindows, WindowCounts
from glraster.segmentation.write_map import Arrivals, ProducerFailedError

H, W = 330, 300


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", landscape(H, W), mask=hole(H, W))


@pytest.mark.parametrize("mode", ["global", "full"])
def test_threads_change_no_byte(mode, scene, tmp_path, model_file, monkeypatch):
    """Windows read ahead and parts written behind give the map of a loop without threads."""
    monkeypatch.setattr(glraster.segmentation.windows, "compute_windows", in_a_loop)
    segment(scene, tmp_path / "loop.tif", model_file(mode))
    monkeypatch.undo()
    segment(scene, tmp_path / "threads.tif", model_file(mode))
    assert (tmp_path / "threads.tif").read_bytes() == (tmp_path / "loop.tif").read_bytes()


def in_a_loop(job, predictor, parts, places, report):
    counts = WindowCounts()
    for place in places:
        image, valid = job.scene.read(job.plan.windows.window(*place))
        scores = predictor.window_scores(image) if valid.any() else None
        if scores is None:
            parts.skip(*place)
        else:
            parts.write(*place, scores.cells)
        counts = counts.with_window(scores)
        report(counts.done + counts.skipped, len(places))
    return counts


PLACES = [(0, 0), (0, 1)]


def test_the_writer_sleeps_until_its_parts_are_there():
    there: set[tuple[int, int]] = set()
    arrivals, seen = Arrivals(PLACES, lambda places: there & set(places), "parts"), []

    def write() -> None:
        for place in PLACES:
            arrivals.wait([place, (7, 7)])  # one that is not computed is not waited for
            seen.append((place, set(there)))

    writer = threading.Thread(target=write)
    writer.start()
    for place in PLACES:
        there.add(place)
        arrivals.look()
    writer.join()
    assert all(place in known for place, known in seen)
    assert len(seen) == 2


def test_parts_that_vanish_are_an_error_instead_of_a_wait_for_ever():
    arrivals = Arrivals(PLACES, lambda _: (), "mask.tif.parts")
    arrivals.end()
    with pytest.raises(OutputError, match=r"mask\.tif\.parts: finished parts are gone"):
        arrivals.wait(PLACES)


def test_an_error_of_the_writer_ends_the_computation(scene, tmp_path, model_file, monkeypatch):
    """The map's first block fails when its parts are there: the last window is not computed."""
    from glraster.raster.writer import CogWriter

    failed, scores = threading.Event(), Predictor.window_scores

    def fails(*_):
        failed.set()
        raise OutputError("no space")

    computed = []

    def counted(*arguments):
        if len(computed) == 8:
            assert failed.wait(60)
        computed.append(1)
        return scores(*arguments)

    monkeypatch.setattr("glraster.segmentation.write_map.BLOCK", (64, 64))
    monkeypatch.setattr(CogWriter, "write", fails)
    monkeypatch.setattr(Predictor, "window_scores", counted)
    with pytest.raises(OutputError, match="no space") as raised:
        segment(scene, tmp_path / "mask.tif", model_file())
    assert any("windows are kept in" in note for note in raised.value.__notes__)


def test_an_error_of_the_computation_wakes_the_writer(scene, tmp_path, model_file, monkeypatch):
    """The writer, which waits for parts, ends with an error of its own, and nothing is published."""
    ended, write = [], glraster.segmentation.write_map.write_map

    def watched(*arguments):
        try:
            return write(*arguments)
        except ProducerFailedError as error:
            ended.append(error)
            raise

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(glraster.segmentation.write_map, "write_map", watched)
    with pytest.raises(KeyboardInterrupt):
        segment(scene, tmp_path / "mask.tif", model_file(), None, stop)
    assert len(ended) == 1
    assert not (tmp_path / "mask.tif").exists()


def test_the_wait_of_the_device_is_told(scene, tmp_path, model_file, run):
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--json", "-v")
    result = json.loads(outcome.out)
    assert 0 < result["device_wait_share"] < 1
    assert 0 < result["windows_seconds"] < result["seconds"]
    (line,) = (line for line in outcome.err.splitlines() if "waited" in line)
    assert line.startswith(f"glraster: info: cpu waited {100 * result['device_wait_share']:.1f} % of ")


def test_the_wait_share_is_what_the_device_did_not_work(scene, tmp_path, model_file, monkeypatch):
    """A clock that advances while windows are read, and not while they are computed."""
    from glraster.raster.reader import Scene

    now, reading = [0.0], Scene.read

    def slowly(*arguments: Any) -> Any:
        now[0] += 1.0
        return reading(*arguments)

    monkeypatch.setattr(Scene, "read", slowly)
    monkeypatch.setattr(glraster.segmentation.windows.time, "perf_counter", lambda: now[0])
    with segment_job(str(scene), tmp_path / "mask.tif", model_file(), None) as job, gdal_session():
        counts = LocalWindows(job).compute(PartFolder(tmp_path, 3), lambda *_: None)
    assert counts.done == 9
    assert counts.seconds == 9
    assert 0 <= counts.wait_share <= 1
    assert counts.wait_share == 1 - counts.busy_s / counts.seconds


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
    assert run("segment", scene, "-o", tmp_path / "one.tif", "-m", model_file(), "--batch", 1).code == 0
    monkeypatch.setattr(glraster.segmentation.job, "FoldedGLNet", Small)
    with caplog.at_level(logging.WARNING, "glraster"):
        outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert outcome.code == 0
    told = [record.message for record in caplog.records if "out of memory" in record.message]
    assert told == [f"cpu is out of memory; going on with {batch} tiles at a time" for batch in (4, 2, 1)]
    np.testing.assert_array_equal(read(tmp_path / "mask.tif"), read(tmp_path / "one.tif"))


def test_a_batch_that_was_asked_for_is_not_changed(scene, tmp_path, model_file, run, monkeypatch):
    monkeypatch.setattr(glraster.segmentation.job, "FoldedGLNet", Small)
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
    call = ["segment", scene, "-m", model_file("full"), "--precision", "float32"]
    assert run(*call, "-o", tmp_path / "folded.tif").code == 0

    def plain(network: GLNet, *_: Any) -> GLNet:
        return network

    monkeypatch.setattr(glraster.segmentation.job, "FoldedGLNet", plain)
    assert run(*call, "-o", tmp_path / "plain.tif").code == 0
    folded, expected = read(tmp_path / "folded.tif"), read(tmp_path / "plain.tif")
    assert len(np.unique(expected)) == 4
    assert (folded != expected).mean() < 1e-3
