"""Masks of any kind become files that GIS programs open: formats, columns, names, measures, style."""

from __future__ import annotations

import json
import sqlite3
import warnings
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasters import HALF_METRE, UTM, write_raster
from vector.masks import as_set, blobs, gdal_polygons

import glraster
from glraster.config import LandClass
from glraster.raster.writer import CLASSES_TAG, classes_json

H, W = 90, 130
INDEXES = "SELECT count(*) FROM gpkg_extensions WHERE extension_name = 'gpkg_rtree_index'"
NAMED = (
    LandClass(1, "house & yard", (200, 30, 30)),
    LandClass(2, "water", (40, 90, 200)),
    LandClass(4, "bog", (9, 9, 9)),
)


def write_mask(path, mask, *, classes=(), **profile):
    write_raster(path, mask[None], **({"nodata": 0} | profile))
    if classes:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**{CLASSES_TAG: classes_json(classes), "GLRASTER_MODEL": "abc123"})
    return path


def read(path, **options):
    with warnings.catch_warnings(action="ignore"):  # of several layers: the style is one
        return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, **options)


def vectorized(mask, output, **options):
    glraster.vectorize(mask, output, **options)
    return read(output)


def in_pixels(frame, transform):
    inverse = ~transform
    a, b, c, d, e, f = tuple(inverse)[:6]
    moved = shapely.transform(
        frame.geometry.values, lambda xy: np.rint(np.stack([xy @ (a, b) + c, xy @ (d, e) + f], axis=1)) + 0.0
    )
    return as_set(list(zip(frame.class_id.tolist(), moved, strict=True)))


@pytest.fixture
def mask():
    return blobs(H, W, seed=11)


@pytest.mark.parametrize("ending", [".gpkg", ".parquet", ".fgb"])
def test_every_format_holds_the_polygons_of_gdal_with_their_measures(ending, mask, tmp_path):
    frame = vectorized(write_mask(tmp_path / "mask.tif", mask), tmp_path / f"out{ending}")
    assert in_pixels(frame, HALF_METRE) == as_set(gdal_polygons(mask))
    assert frame.crs == UTM
    assert list(frame.columns) == ["class_id", "class_name", "area_m2", "perimeter_m", "geometry"]
    np.testing.assert_allclose(frame.area_m2, frame.area)
    np.testing.assert_allclose(frame.perimeter_m, frame.length)
    assert set(frame.class_name) == {"class 1", "class 2", "class 3", "class 4"}


@pytest.mark.parametrize("ending", [".geojson", ".geojsonl"])
def test_geojson_has_longitudes_and_latitudes(ending, mask, tmp_path):
    frame = vectorized(write_mask(tmp_path / "mask.tif", mask), tmp_path / f"out{ending}")
    assert len(frame) == len(gdal_polygons(mask))
    assert frame.total_bounds == pytest.approx([15, 47.85, 15.001, 47.853], abs=0.01)
    assert frame.area_m2.sum() == (mask > 0).sum() / 4


@pytest.mark.parametrize("ending", [".geojson", ".geojsonl"])
def test_geojson_of_a_drones_pixels_keeps_every_vertex(ending, mask, tmp_path):
    """Seven decimals of a degree are a centimetre."""
    fine = {"transform": Affine(0.005, 0, 512_345, 0, -0.005, 5_300_000)}
    frame = vectorized(write_mask(tmp_path / "mask.tif", mask, **fine), tmp_path / f"out{ending}", smooth=True)
    assert len(frame) == len(gdal_polygons(mask))
    assert frame.is_valid.all()
    steps = [np.diff(shapely.get_coordinates(ring), axis=0) for ring in shapely.get_rings(frame.geometry.values)]
    assert np.concatenate(steps).any(axis=1).all()


@pytest.mark.parametrize(
    ("dtype", "profile"),
    [
        ("uint8", {}),
        ("uint8", {"nodata": None}),
        ("int16", {"nodata": -1}),
        ("uint16", {"nodata": None}),
        ("int32", {"nodata": -(2**31)}),
        ("uint32", {"nodata": None}),
        ("uint8", {"tiled": True, "blockxsize": 16, "blockysize": 16}),
        ("uint8", {"blockysize": 1}),
        ("uint8", {"crs": None, "transform": Affine.identity()}),
        ("uint8", {"transform": Affine(0.5, 0, 500_000, 0, 0.5, 5_300_000)}),
        ("uint8", {"transform": HALF_METRE @ Affine.rotation(30)}),
    ],
    ids=str,
)
def test_any_integer_raster_is_read(dtype, profile, mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask.astype(dtype), **profile)
    frame = vectorized(source, tmp_path / "out.gpkg")
    values = mask if profile.get("nodata", 0) == 0 else mask + 1
    theirs = gdal_polygons(values) if values is mask else [(v - 1, p) for v, p in gdal_polygons(values)]
    with rasterio.open(source) as dataset:
        assert in_pixels(frame, dataset.transform) == as_set(theirs)
        if dataset.crs is None:
            assert frame.crs is None
            assert frame.area_m2.isna().all()
        else:
            np.testing.assert_allclose(frame.area_m2, frame.area)
    assert all(shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.values)))


def test_pixels_outside_the_mask_band_are_no_class(mask, tmp_path):
    valid = np.add.outer(np.arange(H), np.arange(W)) > 60
    source = write_raster(tmp_path / "mask.tif", mask[None], mask=valid, nodata=None)
    frame = vectorized(source, tmp_path / "out.gpkg")
    assert frame.area.sum() == valid.sum() / 4


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_areas_and_lengths_are_true_metres(crs, mask, tmp_path):
    pixel = 1e-5 if crs == "EPSG:4326" else 1.5
    origin = (15, 60) if crs == "EPSG:4326" else (1_669_792, 8_399_738)  # both at 60 degrees north
    transform = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    source = write_mask(tmp_path / "mask.tif", mask, crs=crs, transform=transform)
    frame = vectorized(source, tmp_path / "out.gpkg")
    geod, polygons = pyproj.Geod(ellps="WGS84"), frame.to_crs("EPSG:4326").geometry
    areas = [geod.geometry_area_perimeter(polygon)[0] for polygon in polygons]
    np.testing.assert_allclose(frame.area_m2, areas, rtol=1e-5)
    np.testing.assert_allclose(frame.perimeter_m, [geod.geometry_length(p.boundary) for p in polygons], rtol=1e-5)


def test_names_and_colours_come_from_the_masks_own_tag(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask, classes=NAMED)
    frame = vectorized(source, tmp_path / "out.gpkg")
    assert dict(zip(frame.class_id, frame.class_name, strict=True)) == {
        1: "house & yard",
        2: "water",
        3: "class 3",
        4: "bog",
    }
    with sqlite3.connect(tmp_path / "out.gpkg") as database:
        ((layer, qml, default),) = database.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles")
        (text,) = database.execute("SELECT metadata FROM gpkg_metadata").fetchone()
        ((indexed,),) = database.execute(INDEXES)
        ((version,),) = database.execute("PRAGMA user_version")
    assert version == 10300  # GeoPackage 1.3: older readers warn of 1.4
    assert (layer, default, indexed) == ("out", 1, 1)
    style = ElementTree.fromstring(qml.partition("\n")[2])
    labels = {c.get("value"): (c.get("label"), c.get("symbol")) for c in style.iter("category")}
    colors = {s.get("name"): s.find(".//Option[@name='color']").get("value") for s in style.iter("symbol")}
    assert labels["1"][0] == "house & yard"
    assert colors[labels["1"][1]] == "200,30,30,255"
    assert colors[labels["2"][1]] == "40,90,200,255"
    assert "abc123" in text
    assert "mask.tif" in text


def test_colours_come_from_a_colour_table(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask)
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, {1: (10, 20, 30, 255), 2: (1, 1, 9, 255)})
    glraster.vectorize(source, tmp_path / "out.gpkg")
    with sqlite3.connect(tmp_path / "out.gpkg") as database:
        ((qml,),) = database.execute("SELECT styleQML FROM layer_styles")
    assert "10,20,30,255" in qml


def test_classes_and_bounds_choose_what_is_written(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask, classes=NAMED)
    frame = vectorized(source, tmp_path / "out.gpkg", classes=("water", "4"))
    assert set(frame.class_id) == {2, 4}
    bounds = (500_010, 5_299_970, 500_040, 5_299_990)
    crop = vectorized(source, tmp_path / "crop.gpkg", bounds=bounds)
    assert in_pixels(crop, HALF_METRE @ Affine.translation(20, 20)) == as_set(gdal_polygons(mask[20:60, 20:80]))


def test_confidence_is_the_mean_over_a_polygons_pixels(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask)
    percent = np.random.default_rng(0).integers(0, 101, mask.shape).astype(np.uint8)
    percent[::7] = 255
    known = write_raster(tmp_path / "confidence.tif", percent[None], nodata=255)
    frame = vectorized(source, tmp_path / "out.gpkg", confidence=known)
    for polygon, mean in list(zip(frame.geometry, frame.confidence, strict=True))[:40]:
        inside = rasterio.features.geometry_mask([polygon], mask.shape, HALF_METRE, invert=True) & (percent != 255)
        assert (np.isnan(mean) and not inside.any()) or mean == pytest.approx(percent[inside].mean())


def test_dissolve_makes_one_multipolygon_per_class(mask, tmp_path):
    frame = vectorized(write_mask(tmp_path / "mask.tif", mask), tmp_path / "out.gpkg", dissolve=True)
    assert frame.class_id.tolist() == [1, 2, 3, 4]
    assert frame.is_valid.all()
    np.testing.assert_allclose(frame.area_m2, [(mask == i).sum() / 4 for i in range(1, 5)])
    assert len(frame.explode()) == len(gdal_polygons(mask))


def test_dst_crs_moves_every_vertex_and_keeps_the_coverage(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask)
    frame = vectorized(source, tmp_path / "out.gpkg", dst_crs="EPSG:3035")
    assert frame.crs == "EPSG:3035"
    assert frame.area.sum() == pytest.approx((mask > 0).sum() / 4, rel=2e-3)
    assert shapely.coverage_is_valid(frame.geometry.values)


def test_min_area_simplify_and_smooth_together(mask, tmp_path):
    source = write_mask(tmp_path / "mask.tif", mask)
    frame = vectorized(source, tmp_path / "out.gpkg", min_area_m2=5, simplify_m=1, smooth=True)
    assert frame.area.sum() == pytest.approx((mask > 0).sum() / 4)
    assert frame.is_valid.all()
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert len(frame) < len(gdal_polygons(mask)) / 3
    plain = vectorized(source, tmp_path / "plain.gpkg", min_area_m2=5)
    assert (plain.area_m2 >= 5).all()


def test_layer_has_the_name_that_was_asked_for(mask, tmp_path):
    vectorized(write_mask(tmp_path / "mask.tif", mask), tmp_path / "out.gpkg", layer="land cover")
    assert "land cover" in pyogrio.list_layers(tmp_path / "out.gpkg")[:, 0]


def test_geoparquet_says_what_its_geometries_are(mask, tmp_path):
    from pyarrow import parquet

    glraster.vectorize(write_mask(tmp_path / "mask.tif", mask), tmp_path / "out.parquet")
    geo = json.loads(parquet.read_schema(tmp_path / "out.parquet").metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["crs"]["id"]["code"] == 32633


@pytest.mark.parametrize("options", [{}, {"simplify_m": 1.0}], ids=str)
def test_result_does_not_depend_on_threads(options, tmp_path, monkeypatch):
    monkeypatch.setattr("glraster.raster.class_raster.BAND_PX", 3000)
    big = blobs(300, 200, seed=4)
    source = write_mask(tmp_path / "mask.tif", big, blockysize=5)
    one, four = (vectorized(source, tmp_path / f"{n}.gpkg", threads=n, **options) for n in (1, 4))
    assert one.equals(four)
    assert len(one) == len(gdal_polygons(big))
