"""Inputs that must fail: one line that says why, a status, and nothing left behind."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
from rasters import landscape, write_raster, write_vrt

H, W = 150, 200


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", landscape(H, W))


@pytest.fixture
def mask(tmp_path):
    return tmp_path / "mask.tif"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def fails(tmp_path, run):
    """Call, and hold the failure to its manners: status, one line with `text`, folder as before."""

    def call(code: int, text: str, *arguments: object) -> str:
        before = contents(tmp_path)
        outcome = run("segment", *arguments)
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        lines = [line for line in outcome.err.splitlines() if not line.startswith("glraster: warning: ")]
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("glraster: error: ")
        assert text in lines[0]
        assert contents(tmp_path) == before
        return lines[0]

    return call


def truncated(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def no_such_file(folder: Path) -> Path:
    return folder / "absent.tif"


def a_folder(folder: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


def an_empty_file(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def a_text(folder: Path) -> Path:
    (folder / "notes.tif").write_text("not a raster\n" * 100)
    return folder / "notes.tif"


def a_header_without_data(folder: Path) -> Path:
    return truncated(write_raster(folder / "cut.tif", landscape(H, W), blockysize=8), 0.3)


def a_late_cut(folder: Path) -> Path:
    return truncated(write_raster(folder / "cut.tif", landscape(400, W), blockysize=8), 0.9)


def two_rasters_in_one_file(folder: Path) -> Path:
    path = folder / "two.gpkg"
    write_raster(path, landscape(64, 64), driver="GPKG", RASTER_TABLE="a")
    write_raster(path, landscape(64, 64), driver="GPKG", RASTER_TABLE="b", APPEND_SUBDATASET="YES")
    return path


def too_few_bands(folder: Path) -> Path:
    return write_raster(folder / "two.tif", landscape(H, W, 2))


def colour_and_alpha(folder: Path) -> Path:
    return write_raster(folder / "grey.tif", landscape(H, W, 3), photometric="MINISBLACK", alpha="YES")


def complex_pixels(folder: Path) -> Path:
    return write_raster(folder / "radar.tif", landscape(H, W, 3, "complex64"))


def mixed_dtypes(folder: Path) -> Path:
    write_raster(folder / "a.tif", landscape(H, W))
    return write_vrt(
        folder / "mixed.vrt", [("a.tif", 1, "Byte"), ("a.tif", 2, "UInt16"), ("a.tif", 3, "Byte")], H, W, relative=True
    )


def vrt_without_its_source(folder: Path) -> Path:
    return write_vrt(folder / "orphan.vrt", [("gone.tif", b, "Byte") for b in (1, 2, 3)], H, W, relative=True)


def an_endless_name(_: Path) -> Path:
    return Path("x" * 5000)


SCENES = [
    (no_such_file, "cannot be opened as a raster"),
    (a_folder, "cannot be opened as a raster"),
    (an_empty_file, "cannot be opened as a raster"),
    (a_text, "cannot be opened as a raster"),
    (an_endless_name, "cannot be opened as a raster"),
    (a_header_without_data, "cannot be read, it may be damaged"),
    (vrt_without_its_source, "cannot be"),
    (two_rasters_in_one_file, "holds no raster band; name one of its 2 subdatasets"),
    (too_few_bands, "has 2 bands without alpha, the model needs 3"),
    (colour_and_alpha, "has 2 bands without alpha, the model needs 3"),
    (complex_pixels, "has complex pixels"),
    (mixed_dtypes, "differ in dtype: uint16, uint8"),
]


@pytest.mark.parametrize(("make", "text"), SCENES, ids=lambda value: getattr(value, "__name__", ""))
def test_scene_that_cannot_be_used_is_named(make, text, tmp_path, mask, model_file, fails):
    scene = make(tmp_path)
    assert str(scene) in fails(1, text, scene, "-o", mask, "-m", model_file())


def test_scene_damaged_in_a_later_window_keeps_the_finished_parts(tmp_path, mask, model_file, run):
    scene = a_late_cut(tmp_path)
    outcome = run("segment", scene, "-o", mask, "-m", model_file())
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"glraster: error: {scene}: cannot be read, it may be damaged")
    assert "windows are kept" in line
    assert "--resume" in line
    assert not mask.exists()
    assert [path.name for path in tmp_path.iterdir() if path != scene] == ["mask.tif.parts"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--bidx", "1,2,9"), 1, "has no band 9; its bands are 1 to 3"),
        (("--bidx", "0,1,2"), 1, "has no band 0"),
        (("--bidx", "1,2"), 1, "--bidx names 2 bands, the model needs 3"),
        (("--bounds", "0", "0", "10", "10"), 1, "lie outside the scene"),
        (("--bounds", "500050", "5299990", "500010", "5299950"), 1, "are empty"),
        (("--bounds", "nan", "5299950", "500050", "5299990"), 1, "are empty"),
        (("--nodata", "1e99"), 1, "is no value of a scene of uint8"),
        (("--scale", "9", "9"), 2, "needs two values that ascend"),
        (("--scale", "nan", "9"), 2, "needs two values that ascend"),
        (("--device", "foo"), 1, "device 'foo' is unknown"),
        (("--device", "meta"), 1, "device 'meta' is not supported"),
        (("--device", "cuda:77"), 1, "is not there"),
        (("--tile", "90"), 2, "--tile 90 must be a positive multiple of 4"),
        (("--tile", "0"), 2, "--tile 0 must be positive"),
        (("--tile", "-4"), 2, "--tile -4 must be positive"),
        (("--tile", "132"), 2, "--context 128 is smaller than the tile of 132 px"),
        (("--context", "0"), 2, "--context 0"),
        (("--overlap", "96"), 2, "--overlap 96"),
        (("--overlap", "-1"), 2, "--overlap -1"),
        (("--batch", "0"), 2, "--batch 0 must be at least 1"),
        (("--co", "COMPRESS=FOO"), 2, "GDAL refuses --co COMPRESS=FOO"),
        (("--co", "BLOCKSIZE=17"), 2, "GDAL refuses --co BLOCKSIZE=17"),
        (("--co", "COMPRES=LZW"), 2, "--co COMPRES=LZW"),
        (("--co", "COMPRESS=JPEG"), 2, "--co COMPRESS=JPEG"),
        (("--co", "TILING_SCHEME=GoogleMapsCompatible"), 2, "--co TILING_SCHEME=GoogleMapsCompatible"),
        (("--context", "96", "--merge", "paper"), 2, "--merge paper is for scenes of one context"),
        (("--context", "256", "--merge", "paper", "--resume"), 2, "cannot be resumed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_option_that_cannot_be_met_is_named(arguments, code, text, scene, mask, model_file, fails):
    fails(code, text, scene, "-o", mask, "-m", model_file(), *arguments)


@pytest.mark.parametrize(
    "arguments", [("--gsd", "0"), ("--gsd", "nan"), ("--gsd", "x"), ("--bidx", "a"), ("--co", "A")]
)
def test_option_that_cannot_be_parsed_is_a_usage_error(arguments, scene, mask, model_file, run):
    outcome = run("segment", scene, "-o", mask, "-m", model_file(), *arguments)
    assert outcome.code == 2
    assert "Usage: " in outcome.err


@pytest.mark.parametrize("option", ["OVERVIEW_RESAMPLING=NEAREST", "overviews=NONE", "COMPRESS=ZSTD", "BLOCKSIZE=256"])
def test_creation_options_of_the_cog_driver_are_obeyed(option, scene, mask, model_file, run):
    outcome = run("segment", scene, "-o", mask, "-m", model_file(), "--co", option)
    assert outcome.code == 0, outcome.err


def test_cuda_that_is_absent_is_named(scene, mask, model_file, fails):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    fails(1, "use --device cpu", scene, "-o", mask, "-m", model_file(), "--device", "cuda")


def test_branch_that_a_global_model_lacks_is_a_usage_error(scene, mask, model_file, fails):
    text = "the model has a global branch only; leave out --branch local"
    fails(2, text, scene, "-o", mask, "-m", model_file("global"), "--branch", "local")


def test_gsd_without_a_crs_says_what_to_do(tmp_path, mask, model_file, fails):
    scene = write_raster(tmp_path / "scene.tif", landscape(60, 60), crs=None)
    fails(1, "assign one", scene, "-o", mask, "-m", model_file(), "--gsd", "0.5")


def test_gsd_far_below_the_scenes_is_refused_before_memory_runs_out(scene, mask, model_file, fails):
    fails(1, "--gsd", scene, "-o", mask, "-m", model_file(), "--gsd", "1e-7")


def newer_version(path: Path) -> Path:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    record = json.loads(header["__metadata__"]["glraster"]) | {"format_version": 99}
    header["__metadata__"]["glraster"] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def broken_model(kind: str, whole: Path, path: Path) -> Path:
    if kind == "text":
        path.write_text("weights, honestly")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    elif kind != "missing":
        path.write_bytes(whole.read_bytes())
    return {"cut": lambda p: truncated(p, 0.5), "newer": newer_version}.get(kind, lambda p: p)(path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "cannot be read (No such file or directory)"),
        ("text", "not a model of glraster"),
        ("pickle", "a PyTorch file, not a model"),
        ("cut", "it is damaged"),
        ("newer", "format version 99 is newer than this glraster knows"),
    ],
)
def test_model_that_cannot_be_used_is_named(kind, text, scene, mask, tmp_path, model_file, fails):
    model = broken_model(kind, model_file("global"), tmp_path / "model.safetensors")
    assert str(model) in fails(1, text, scene, "-o", mask, "-m", model)


def test_first_mistake_told_is_the_cheapest_one(tmp_path, mask, model_file, fails):
    fails(2, "--batch 0", tmp_path / "absent.tif", "-o", mask, "-m", model_file(), "--batch", "0")
