"""Rasters from strangers: sizes that cannot be, blocks that cannot be decoded, heads that lie."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hostile.campaigns import load_benchmark
from hostile.confined import assert_one_line, confined
from rasters import HALF_METRE, UTM, landscape, write_raster

from glraster import files
from glraster.errors import SceneError
from glraster.raster import grid
from glraster.raster.grid import Axis, Window, WindowGrid
from glraster.raster.reader import Scene


def sparse(path, height: int, width: int, block: int = 512, **profile):
    """A TIFF that claims a size and holds no pixel."""
    form = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True, "blockxsize": block, "blockysize": block}
    form |= {"sparse_ok": True, "bigtiff": "yes", "compress": "deflate", "crs": UTM, "transform": HALF_METRE}
    with rasterio.open(path, "w", height=height, width=width, **(form | profile)):
        pass
    return path


def claim_free_space(monkeypatch, free: int) -> None:
    """The disk as the check before a run sees it; the writers see the real one."""
    monkeypatch.setattr(
        files, "shutil", SimpleNamespace(**vars(shutil) | {"disk_usage": lambda _: SimpleNamespace(free=free)})
    )


def test_a_part_of_a_terapixel_claim_is_mapped_in_bounded_memory(tmp_path, model_file):
    scene = sparse(tmp_path / "claim.tif", 10**6, 10**6, block=4096)
    bounds = ["--bounds", 700_000, 5_000_000, 700_030, 5_000_020]
    ended = confined(
        tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(context_px=1024, tile_px=512), *bounds
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.memory_bytes < 1.2 * 2**30
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == (40, 60)


def test_the_cost_of_a_terapixel_claim_is_told_before_anything_is_computed(tmp_path, model_file):
    scene = sparse(tmp_path / "claim.tif", 10**6, 10**6, block=4096)
    model = model_file(context_px=1024, tile_px=512)
    ended = confined(tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model, "--dry-run")
    assert ended.code == 0
    assert "GiB on disk" in ended.out
    assert ended.memory_bytes < 1.2 * 2**30


@pytest.mark.parametrize("declared", ["every pixel valid", "holes"])
def test_parts_that_cannot_fit_the_disk_are_told_before_anything_is_computed(
    declared, tmp_path, model_file, monkeypatch, run
):
    """A scene with holes may need less: it is tried, with a warning."""
    holes = declared == "holes"
    pixels = landscape(200, 300)
    pixels[:, :, 10:] = 7 if holes else pixels[:, :, 10:]
    scene = write_raster(tmp_path / "scene.tif", pixels, nodata=7 if holes else None)
    claim_free_space(monkeypatch, 20_000)
    monkeypatch.setattr(files, "WORTH_A_CHECK_BYTES", 0)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert outcome.err.count("\n") == 1
    if holes:
        assert outcome.code == 0
        assert "warning" in outcome.err
        assert "may need 0.0 GiB beside it, 0.0 GiB are free" in outcome.err
    else:
        assert (outcome.code, outcome.out) == (1, "")
        assert "choose a folder with more, or map a part with --bounds" in outcome.err
        assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_a_terapixel_claim_does_not_fill_the_disk(tmp_path, model_file, monkeypatch, run):
    claim_free_space(monkeypatch, 100 * 2**30)
    scene = sparse(tmp_path / "claim.tif", 10**6, 10**6, block=4096)
    model = model_file(context_px=1024, tile_px=512)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "GiB beside it, 100.0 GiB are free" in outcome.err
    assert [p.name for p in tmp_path.iterdir()] == ["claim.tif"]


def test_more_windows_than_can_be_listed_are_refused(tmp_path, model_file):
    scene = sparse(tmp_path / "claim.tif", 10**6, 10**6, block=4096)
    ended = confined(tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert_one_line(ended, "context windows, more than 16777216; map a part at a time with --bounds")


def test_windows_up_to_the_limit_are_listed(monkeypatch):
    monkeypatch.setattr(grid, "MOST_WINDOWS", 6)
    rows, columns = Axis(20, 8, (0, 4, 12)), Axis(16, 8, (0, 8))
    assert len(WindowGrid(rows, columns).touching(Window(0, 0, 20, 16))) == 6
    monkeypatch.setattr(grid, "MOST_WINDOWS", 5)
    with pytest.raises(SceneError, match="need 6 context windows"):
        WindowGrid(rows, columns).touching(Window(0, 0, 20, 16))


def test_a_side_beyond_reason_is_refused(tmp_path, model_file):
    scene = sparse(tmp_path / "claim.tif", 256, 2**31 - 1, block=16384)
    ended = confined(tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert_one_line(ended, "claims 2147483647 x 256 px")


def test_a_block_too_large_to_decode_is_refused(tmp_path, model_file):
    scene = sparse(tmp_path / "claim.tif", 40_000, 40_000, block=32768)
    ended = confined(tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert_one_line(ended, "is stored in blocks of 32768 x 32768 px")
    ordinary = sparse(tmp_path / "ordinary.tif", 40_000, 40_000, block=16384)
    with Scene(str(ordinary), None, 3) as scene:
        assert scene.shape == (40_000, 40_000)


@pytest.mark.parametrize(
    "call",
    [
        ["vectorize", "CLAIM", "-o", "OUT.gpkg"],
        ["preview", "CLAIM", "-o", "OUT.png"],
        ["report", "CLAIM", "-o", "OUT.html"],
        ["evaluate", "CLAIM", "TRUTH"],
        ["evaluate", "TRUTH", "CLAIM"],
    ],
    ids=" ".join,
)
def test_every_verb_refuses_a_block_too_large_to_decode(call, tmp_path, run):
    claim = sparse(tmp_path / "claim.tif", 40_000, 40_000, block=40_000, count=1)
    truth = write_raster(tmp_path / "truth.tif", np.ones((1, 9, 9), np.uint8))
    names = {"CLAIM": claim, "TRUTH": truth}
    outcome = run(*(names.get(word, str(tmp_path / word) if word.startswith("OUT") else word) for word in call))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "claim.tif: is stored in blocks of 40000 x 40000 px" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"claim.tif", "truth.tif"}


@pytest.mark.parametrize("keep", [0, 7, 8, 200, 5000])
def test_cut_files_end_in_one_line(keep, tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(100, 120), tiled=True, compress="deflate")
    scene.write_bytes(scene.read_bytes()[:keep])
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "scene.tif: " in outcome.err


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bound a process's address space")
def test_mutated_heads_are_read_or_refused():
    """A deterministic campaign; `python benchmarks/fuzz_geotiff.py` goes on from there."""
    counts = load_benchmark("fuzz_geotiff").fuzz_geotiff(first=0, runs=500, seconds=300)
    assert counts["findings"] == []
    assert counts["tried"] == 500
    assert min(counts["read"], counts["refused"]) > 50, "the mutations are too weak or too strong"


@pytest.mark.parametrize("seed", [51, 325, 32_709, 38_640])
def test_what_the_campaigns_found_stays_repaired(seed):
    """Points outside a projection, and texts that are not UTF-8."""
    counts = load_benchmark("fuzz_geotiff").fuzz_geotiff(first=seed, runs=1, seconds=60)
    assert (counts["tried"], counts["findings"]) == (1, [])


def test_points_outside_the_projection_are_no_traceback(tmp_path, model_file, run):
    far = Affine(1e7, 0, 1e12, 0, -1e7, 1e12)
    scene = write_raster(tmp_path / "scene.tif", landscape(60, 60), transform=far)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(gsd_m=0.5))
    assert "Traceback" not in outcome.err
    assert outcome.code == 0
    assert "has no CRS that tells metres" in outcome.err


def test_code_in_a_vrt_is_not_run(tmp_path, model_file, run):
    """GDAL runs Python in a VRT only where GDAL_VRT_ENABLE_PYTHON says so; nothing here may say so."""
    mark = tmp_path / "executed"
    write_raster(tmp_path / "source.tif", landscape(60, 60))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>run</PixelFunctionType>"
        f"<PixelFunctionCode><![CDATA[\ndef run(*_, **__):\n    open({str(mark)!r}, 'w')\n]]></PixelFunctionCode>"
        '<SimpleSource><SourceFilename relativeToVRT="1">source.tif</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    scene = tmp_path / "scene.vrt"
    scene.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="60">{bands}</VRTDataset>')
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert outcome.code == 1
    assert "scene.vrt: cannot be read" in outcome.err
    assert not mark.exists()


def test_a_vrt_of_itself_ends(tmp_path, model_file):
    band = '<VRTRasterBand dataType="Byte" band="{0}"><SimpleSource><SourceFilename relativeToVRT="1">scene.vrt'
    band += "</SourceFilename><SourceBand>{0}</SourceBand></SimpleSource></VRTRasterBand>"
    scene = tmp_path / "scene.vrt"
    bands = "".join(band.format(i) for i in (1, 2, 3))
    scene.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="60">{bands}</VRTDataset>')
    ended = confined(tmp_path, "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert ended.code == 1
    assert "scene.vrt: cannot be" in ended.err
    assert "Traceback" not in ended.err
