"""Windows and bands on a cluster: what they have in common, whoever is lost and whatever the user can put right."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
from rasters import landscape, write_raster
from vector.masks import blobs

from glraster.cluster.client import connected
from glraster.errors import ClusterError, SceneError
from glraster.raster import class_raster
from glraster.segmentation import distributed as distributed_windows
from glraster.segmentation import job as segmentation_job
from glraster.segmentation.segment import SegmentOptions, segment
from glraster.vector import bands
from glraster.vector import distributed as distributed_bands
from glraster.vector.vectorize import VectorizeOptions, vectorize

H, W = 400, 300


@dataclass(frozen=True)
class Case:
    """One of the two commands, on a raster, with many tasks; `compute` returns the bytes of the output."""

    name: str
    raster: Path
    model: Path

    def compute(self, output: Path, cluster=None, progress=None, raster: Path | None = None) -> bytes:
        raster = raster or self.raster
        if self.name == "segment":
            segment(raster, output, self.model, SegmentOptions(), progress, cluster)
        else:
            vectorize(raster, output, VectorizeOptions(simplify_m=1.0, layer="a"), progress, cluster)
        return output.read_bytes()

    @property
    def ending(self) -> str:
        return ".tif" if self.name == "segment" else ".fgb"

    def arguments(self, output: Path) -> list[object]:
        model = ["-m", self.model] if self.name == "segment" else []
        return [self.name, self.raster, "-o", output, *model]

    def function_of_a_task(self):
        """Where the client looks up what workers do."""
        return (distributed_windows, "compute_task") if self.name == "segment" else (bands, "trace_band")


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    scene = write_raster(folder / "scene.tif", landscape(H, W), tiled=True, blockxsize=64, blockysize=64)
    mask = write_raster(folder / "mask.tif", blobs(H, W, seed=4)[None], nodata=0, blockysize=5)
    return {"segment": scene, "vectorize": mask}


@pytest.fixture(params=["segment", "vectorize"])
def case(request, rasters, model_file, monkeypatch):
    monkeypatch.setattr(class_raster, "BAND_PX", 304 * 10)
    return Case(request.param, rasters[request.param], model_file())


def test_a_killed_worker_changes_no_byte(case, cluster, tmp_path):
    """Tasks are under way, and done ones wait on their worker for their turn, when it is killed."""
    killed = []

    def kill(*_):
        if not killed:
            with distributed.Client(cluster.name, set_as_default=False) as client:
                client.wait_for_workers(2)  # a test before may have killed one
                killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    near = case.compute(tmp_path / f"near{case.ending}")
    assert case.compute(tmp_path / f"far{case.ending}", cluster, kill) == near
    assert killed


@pytest.mark.parametrize("option", ["--workers", "--scheduler"])
def test_dask_that_is_not_installed_is_one_line(option, case, tmp_path, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = run(*case.arguments(tmp_path / f"out{case.ending}"), option, 2)
    assert outcome.code == 2
    assert "pip install 'glraster[dask]'" in outcome.err


def test_an_unreachable_scheduler_is_one_line(case, tmp_path, monkeypatch, run):
    monkeypatch.setattr("glraster.cluster.client.SCHEDULER_S", 1)
    outcome = run(*case.arguments(tmp_path / f"out{case.ending}"), "--scheduler", "tcp://127.0.0.1:9")
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("glraster: error: tcp://127.0.0.1:9: no scheduler can be reached there")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_does_not_see_the_raster_is_named(case, cluster, tmp_path, monkeypatch):
    """As if the file had another name on the worker's machine."""
    if case.name == "segment":
        call = distributed_windows.scene_call
        monkeypatch.setattr(distributed_windows, "scene_call", lambda job: replace(call(job), scene="/elsewhere/a.tif"))
    else:
        call = distributed_bands.mask_call
        monkeypatch.setattr(distributed_bands, "mask_call", lambda job: replace(call(job), mask="/elsewhere/a.tif"))
    with (
        connected(cluster.name) as another,
        pytest.raises(ClusterError, match=r"worker tcp://.*/elsewhere/a\.tif.*see"),
    ):
        case.compute(tmp_path / f"out{case.ending}", another)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_another_version_is_named(case, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation_job if case.name == "segment" else distributed_bands, "__version__", "99")
    text = r'worker tcp://.*would compute another map: versions is \[.*, not \["99"'
    with connected(cluster.name) as another, pytest.raises(ClusterError, match=text):
        case.compute(tmp_path / f"out{case.ending}", another)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_raster_is_the_error_of_a_run_on_one_machine(case, cluster, tmp_path):
    """A raster whose blocks are cut opens, and cannot be read."""
    damaged, content = tmp_path / "damaged.tif", case.raster.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    for crew in (None, cluster):
        folder = tmp_path / f"{crew is None}"
        folder.mkdir()
        with pytest.raises(SceneError, match="cannot be read") as raised:
            case.compute(folder / f"out{case.ending}", crew, raster=damaged)
        assert not (folder / f"out{case.ending}").exists()
    assert any(note.startswith("on worker tcp://") for note in raised.value.__notes__)


def test_a_task_that_ends_its_workers_is_an_error_with_advice(case, tmp_path, monkeypatch):
    advice = "use a smaller --batch or --tile" if case.name == "segment" else "make a tiled copy"
    monkeypatch.setattr(*case.function_of_a_task(), lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        connected(workers=1) as doomed,
        pytest.raises(ClusterError, match=rf"ended one worker after another.*{advice}"),
    ):
        case.compute(tmp_path / f"out{case.ending}", doomed)
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_computes_scene_and_mask_one_after_another(rasters, model_file, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(class_raster, "BAND_PX", 304 * 10)
    outputs = {}
    for crew in (None, cluster):
        for name in ("segment", "vectorize"):
            case = Case(name, rasters[name], model_file())
            outputs[name, crew is None] = case.compute(tmp_path / f"{crew is None}{case.ending}", crew)
    assert outputs["segment", True] == outputs["segment", False]
    assert outputs["vectorize", True] == outputs["vectorize", False]
    assert len(np.unique(list(outputs["segment", True]))) > 10
