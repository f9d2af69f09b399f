"""The verbs from Python: what they take, what they give, how they fail."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT
from rasters import HALF_METRE, UTM, landscape, write_raster

import glraster

PIXELS = landscape(150, 110)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", PIXELS)


@pytest.fixture
def mask(scene, model_file, tmp_path):
    """The mask that `segment` writes of the scene, as an array."""
    glraster.segment(scene, tmp_path / "written.tif", model=model_file())
    with rasterio.open(tmp_path / "written.tif") as dataset:
        return dataset.read(1)


def test_the_module_lists_its_verbs_records_and_errors():
    verbs = {"segment", "vectorize", "polygonize", "load_model", "train", "evaluate", "report", "preview", "connect"}
    assert verbs | {"LandCover", "SegmentResult", "GlrasterError"} <= set(dir(glraster))
    assert all(getattr(glraster, name) is not None for name in dir(glraster))
    with pytest.raises(AttributeError, match="no attribute 'segmentize'"):
        glraster.segmentize  # noqa: B018


def test_an_output_gives_the_record_of_the_run(scene, model_file, tmp_path):
    result = glraster.segment(scene, tmp_path / "mask.tif", model=model_file(), overlap_px=32, tta=True)
    assert (result.height, result.width) == (150, 110)
    assert isinstance(result, glraster.SegmentResult)


def test_no_output_gives_the_map_itself(scene, model_file, mask, tmp_path):
    cover = glraster.segment(scene, model=model_file())
    assert np.array_equal(cover.array, mask)
    assert cover.transform == HALF_METRE
    assert cover.crs == UTM
    assert {c.id for c in cover.classes} >= set(np.unique(mask)) - {255}
    assert cover.confidence.shape == mask.shape
    assert cover.confidence.max() <= 100
    saved = cover.save(tmp_path / "saved.tif")
    assert saved.read_bytes() == (tmp_path / "written.tif").read_bytes()
    with pytest.raises(glraster.OutputError, match="exists; use overwrite=True"):
        cover.save(saved)


def test_a_map_removes_its_files_when_nobody_holds_it(scene, model_file):
    cover = glraster.segment(scene, model=model_file())
    path = cover.path
    assert path.exists()
    del cover
    gc.collect()
    assert not path.parent.exists()


def test_a_map_draws_itself_in_a_notebook(scene, model_file):
    drawn = glraster.segment(scene, model=model_file())._repr_html_()
    assert drawn.startswith("<img ")
    assert "data:image/png;base64,iVBORw0KGgo" in drawn


def test_a_read_map_has_what_the_file_says(scene, model_file, tmp_path):
    glraster.segment(scene, tmp_path / "mask.tif", model=model_file(), confidence=str(tmp_path / "confidence.tif"))
    cover = glraster.LandCover.read(tmp_path / "mask.tif", tmp_path / "confidence.tif")
    assert [c.name for c in cover.classes] == ["building & roof", "bare land", "water"]
    assert cover.confidence.shape == cover.array.shape


@pytest.mark.parametrize("form", ["dataset", "memory file", "warped", "arrays"])
def test_a_scene_may_be_a_dataset_or_arrays(form, scene, model_file, mask):
    with (
        rasterio.open(scene) as dataset,
        rasterio.MemoryFile(scene.read_bytes()) as memory,
        memory.open() as held,
        WarpedVRT(dataset) as warped,
    ):
        arrays = (PIXELS, HALF_METRE, UTM)
        given = {"dataset": dataset, "memory file": held, "warped": warped, "arrays": arrays}[form]
        cover = glraster.segment(given, model=model_file())
    assert np.array_equal(cover.array, mask)
    assert cover.transform == HALF_METRE
    assert cover.crs == UTM


def test_an_array_of_no_raster_is_refused(model_file):
    with pytest.raises(glraster.UsageError, match=r"shape \(4,\) is no raster; give \(bands, H, W\)"):
        glraster.segment((np.zeros(4), HALF_METRE, UTM), model=model_file())


def test_an_array_without_its_place_is_a_type_error(model_file):
    with pytest.raises(TypeError, match=r"a ndarray is no raster; give a path, a rasterio dataset open for reading"):
        glraster.segment(PIXELS, model=model_file())


def test_a_damaged_confidence_is_an_error_of_ours(scene, model_file, tmp_path):
    glraster.segment(scene, tmp_path / "mask.tif", model=model_file())
    (tmp_path / "confidence.tif").write_bytes(b"no raster")
    with pytest.raises(glraster.SceneError, match=r"confidence\.tif: "):
        glraster.LandCover.read(tmp_path / "mask.tif", tmp_path / "confidence.tif")


def test_an_unknown_option_is_a_type_error_with_a_suggestion(scene):
    with pytest.raises(TypeError, match=r"segment\(\) has no option 'ttaa'; did you mean 'tta'\?"):
        glraster.segment(scene, ttaa=True)


def test_errors_name_keywords_not_flags(scene, model_file, tmp_path):
    (tmp_path / "mask.tif").write_bytes(b"mine")
    with pytest.raises(glraster.OutputError, match="exists; use overwrite=True to replace it"):
        glraster.segment(scene, tmp_path / "mask.tif", model=model_file())
    with pytest.raises(glraster.UsageError, match="tile_px=50 must be a positive multiple of 4"):
        glraster.segment(scene, model=model_file(), tile_px=50)


def test_an_interrupt_says_how_to_go_on_in_python(model_file, tmp_path):
    def interrupt(progress):
        if progress.done > progress.total // 2:
            raise KeyboardInterrupt

    tall = (landscape(900, 110), HALF_METRE, UTM)
    with pytest.raises(KeyboardInterrupt) as ended:
        glraster.segment(tall, tmp_path / "mask.tif", model=model_file(), progress=interrupt)
    assert "with resume=True to go on" in ended.value.__notes__[0]


def test_polygons_are_a_geodataframe_of_named_classes(scene, model_file, mask):
    cover = glraster.segment(scene, model=model_file())
    frame = cover.to_geodataframe()
    assert isinstance(frame, gpd.GeoDataFrame)
    assert frame.crs == UTM
    assert set(frame.class_id) == set(np.unique(mask)) - {255}
    assert frame.geometry.area.sum() == pytest.approx((mask != 255).sum() * 0.25)
    assert len(glraster.polygonize((mask, HALF_METRE, UTM))) == len(frame)
    assert len(cover.to_geodataframe(dissolve=True)) == len(set(frame.class_id))


def test_polygons_go_to_a_file(scene, model_file, tmp_path):
    cover = glraster.segment(scene, model=model_file())
    result = glraster.vectorize(cover, tmp_path / "polygons.gpkg", min_area_m2=1.0)
    assert result.polygons == len(gpd.read_file(tmp_path / "polygons.gpkg", layer="polygons"))


def test_a_loaded_model_predicts_what_segment_maps(scene, model_file, mask):
    model = glraster.load_model(model_file())
    probabilities = model.predict(PIXELS)
    assert probabilities.shape == (3, 150, 110)
    assert probabilities.sum(0) == pytest.approx(1, abs=1e-5)
    ids = np.array([c.id for c in model.classes])[probabilities.argmax(0)]
    assert (ids == mask).mean() > 0.999  # a file's parts are float16
    assert np.array_equal(glraster.segment(scene, model=model).array, mask)


def test_a_model_predicts_arrays_of_several_windows(model_file):
    pixels = landscape(400, 130)
    cover = glraster.segment((pixels, HALF_METRE, UTM), model=model_file("full"))
    model = glraster.load_model(model_file("full"))
    ids = np.array([c.id for c in model.classes])[model.predict(pixels).argmax(0)]
    assert (ids == cover.array).mean() > 0.999


def test_a_model_refuses_arrays_of_other_bands(model_file):
    with pytest.raises(glraster.UsageError, match=r"shape \(4, 8, 8\); the model needs \(3, H, W\)"):
        glraster.load_model(model_file()).predict(np.zeros((4, 8, 8), np.uint8))


def test_a_map_is_evaluated_reported_and_drawn(scene, model_file, tmp_path):
    cover = glraster.segment(scene, model=model_file())
    scores = glraster.evaluate(cover, cover.save(tmp_path / "truth.tif"), tolerance=(3.0, "px"))
    assert scores.miou == 1
    page = glraster.report(cover, tmp_path / "report.html", scene=str(scene), truth=str(tmp_path / "truth.tif"))
    assert page.bytes == (tmp_path / "report.html").stat().st_size
    assert glraster.preview(cover, tmp_path / "map.png", size=200).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(glraster.UsageError, match="give `truth`"):
        glraster.evaluate(cover)


def test_a_notebook_shows_a_bar_and_removes_it(scene, model_file, monkeypatch):
    shown = []
    shell = type("ZMQInteractiveShell", (), {})()
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    def display(content, display_id):
        shown.append(content)
        return handle if display_id else None

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    glraster.segment(scene, model=model_file())
    assert '<progress value="1.0000" max="1"></progress> segment windows 100%' in shown
    assert shown[-1] == ""
