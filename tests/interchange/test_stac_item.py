"""The STAC item beside a mask: valid, true to the raster, readable by others, silent about secrets."""

from __future__ import annotations

import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from interchange.stac_rules import CLASSIFICATION, PROCESSING, PROJECTION
from rasterio.warp import transform_bounds
from rasters import HALF_METRE, UTM, landscape, write_raster

from glraster.config import LandClass
from glraster.errors import OutputError, SceneError
from glraster.files import item_path
from glraster.interchange.stac import MapFiles, acquisition_time, classification, write_stac_item
from glraster.raster.writer import classes_json

pystac = pytest.importorskip("pystac")
jsonschema = pytest.importorskip("jsonschema")

CLASSES = (
    LandClass(3, 'roof <script>&"', (200, 30, 30)),
    LandClass(7, "水", (1, 2, 3)),
    LandClass(1, "水", (40, 90, 200)),
)


def write_mask(path: Path, height: int = 40, width: int = 60, **profile) -> Path:
    form = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "height": height, "width": width}
    with rasterio.open(path, "w", **(form | {"crs": UTM, "transform": HALF_METRE} | profile)) as mask:
        mask.write(np.full((1, height, width), 3, np.uint8))
        mask.update_tags(
            GLRASTER_MODEL="0123456789ab", GLRASTER_VERSION="1.2.3", GLRASTER_CLASSES=classes_json(CLASSES)
        )
    return path


def written(mask: Path, scene: str = "scene.tif", **files) -> dict:
    path = item_path(mask)
    acquired = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    write_stac_item(MapFiles(mask, scene, **files), path, acquired)
    item: dict = json.loads(path.read_text(encoding="utf-8"))
    check(item)
    return item


def check(item: dict) -> None:
    """The core schemas come with pystac; nothing is fetched."""
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, item["stac_version"])
    jsonschema.validate(item["properties"], PROJECTION)
    jsonschema.validate(item["properties"], PROCESSING)
    jsonschema.validate(item["assets"]["mask"], CLASSIFICATION)


def test_item_tells_grid_classes_and_origin(tmp_path):
    item = written(write_mask(tmp_path / "mask.tif"), str(tmp_path / "a scene.tif"))
    properties = item["properties"]
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [40, 60]
    assert properties["proj:transform"] == [0.5, 0, 500_000, 0, -0.5, 5_300_000]
    assert properties["proj:bbox"] == [500_000, 5_299_980, 500_030, 5_300_000]
    assert properties["gsd"] == pytest.approx(0.5, rel=1e-3)
    assert properties["datetime"] == "2024-05-06T07:08:09Z"
    assert properties["processing:software"] == {"glraster": "1.2.3"}
    assert "0123456789ab" in properties["processing:lineage"]
    assert [(c["value"], c["title"]) for c in item["assets"]["mask"]["classification:classes"]] == [
        (c.id, c.name) for c in CLASSES
    ]
    assert item["links"] == [{"rel": "derived_from", "href": "./a%20scene.tif", "title": "The scene"}]
    assert item["bbox"] == pytest.approx(
        transform_bounds(UTM, "EPSG:4326", 500_000, 5_299_980, 500_030, 5_300_000), abs=1e-6
    )


def test_others_read_the_item_back(tmp_path):
    from pystac.extensions.classification import ClassificationExtension
    from pystac.extensions.projection import ProjectionExtension

    mask = write_mask(tmp_path / "mask.tif")
    written(mask, confidence=tmp_path / "conf.tif", style=tmp_path / "mask.qml")
    item = pystac.Item.from_file(str(item_path(mask)))
    assert ProjectionExtension.ext(item).epsg == 32633
    classes = ClassificationExtension.ext(item.assets["mask"]).classes
    assert [c.value for c in classes] == [3, 7, 1]
    assert Path(item.assets["mask"].get_absolute_href()) == mask
    assert set(item.assets) == {"mask", "confidence", "style"}


def test_without_crs_the_geometry_is_null_and_there_is_no_box(tmp_path):
    item = written(write_mask(tmp_path / "mask.tif", crs=None))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None


def test_an_engineering_crs_is_told_but_gives_no_geometry(tmp_path):
    local = 'ENGCRS["site",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    item = written(write_mask(tmp_path / "mask.tif", crs=rasterio.CRS.from_wkt(local)))
    assert item["geometry"] is None
    assert "site" in item["properties"]["proj:wkt2"]


def test_footprint_crosses_the_antimeridian_in_two_pieces(tmp_path):
    transform = Affine(0.01, 0, 179.8, 0, -0.01, 10)
    item = written(write_mask(tmp_path / "mask.tif", crs="EPSG:4326", transform=transform))
    assert item["geometry"]["type"] == "MultiPolygon"
    assert item["bbox"] == pytest.approx([179.8, 9.6, -179.6, 10])
    longitudes = [x for polygon in item["geometry"]["coordinates"] for ring in polygon for x, _ in ring]
    assert min(longitudes) == -180
    assert max(longitudes) == 180


def test_a_grid_around_the_pole_reaches_it(tmp_path):
    transform = Affine(10_000, 0, -300_000, 0, -10_000, 200_000)
    item = written(write_mask(tmp_path / "mask.tif", crs="EPSG:3413", transform=transform))
    shape = shapely.from_geojson(json.dumps(item["geometry"]))
    assert shape.is_valid
    assert item["bbox"][::2] == [-180, 180]
    assert item["bbox"][3] == 90
    assert 86 < item["bbox"][1] < 88
    assert all(shape.contains(shapely.Point(lon, 89.5)) for lon in range(-175, 180, 10))
    assert not shape.contains(shapely.Point(-45, 80))


def test_a_grid_that_starts_at_the_antimeridian_lies_on_one_side_of_it(tmp_path):
    transform = Affine(0.01, 0, 180, 0, -0.01, 10)
    item = written(write_mask(tmp_path / "mask.tif", crs="EPSG:4326", transform=transform))
    shape = shapely.from_geojson(json.dumps(item["geometry"]))
    assert shape.is_valid
    assert item["bbox"] == list(shape.bounds) == pytest.approx([-180, 9.6, -179.4, 10])


@pytest.mark.parametrize("north_up", [True, False])
def test_a_turned_grid_across_the_antimeridian_covers_its_pixels_and_no_others(north_up, tmp_path):
    transform = (
        Affine.translation(613_000, 6_029_000) @ Affine.rotation(30) @ Affine.scale(600, -600 if north_up else 600)
    )
    item = written(write_mask(tmp_path / "mask.tif", 39, 322, crs="EPSG:32660", transform=transform))
    shape = shapely.from_geojson(json.dumps(item["geometry"]))
    assert shape.is_valid
    assert all(part.exterior.is_ccw for part in shape.geoms)
    rows, columns = np.mgrid[-20:60, -100:422].reshape(2, -1)
    lon, lat = rasterio.warp.transform("EPSG:32660", "EPSG:4326", *(transform @ (columns + 0.5, rows + 0.5)))
    inside = (rows >= 0) & (rows < 39) & (columns >= 0) & (columns < 322)
    assert (shapely.contains_xy(shape, lon, lat) == inside).all()


@pytest.mark.parametrize("west", [-180, 0, -189])
def test_the_whole_earth_is_one_box(west, tmp_path):
    item = written(write_mask(tmp_path / "mask.tif", 20, 40, crs="EPSG:4326", transform=Affine(9, 0, west, 0, -9, 90)))
    assert item["bbox"] == [-180, -90, 180, 90]
    assert item["geometry"]["type"] == "Polygon"


def test_a_rotated_grid_keeps_its_corners(tmp_path):
    transform = HALF_METRE @ Affine.rotation(30)
    item = written(write_mask(tmp_path / "mask.tif", transform=transform))
    ring = np.array(item["geometry"]["coordinates"][0])
    xs, ys = rasterio.warp.transform("EPSG:4326", UTM, ring[:, 0], ring[:, 1])
    for corner in ((0, 0), (60, 0), (0, 40), (60, 40)):
        x, y = transform @ corner
        assert np.hypot(np.array(xs) - x, np.array(ys) - y).min() < 0.02
    assert np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]) > 0, "counter-clockwise"


@pytest.mark.parametrize(
    ("scene", "href"),
    [
        ("https://anna:geheim@example.org/a.tif?X-Amz-Signature=geheim", "https://example.org/a.tif"),
        ("/vsicurl/https://example.org/a.tif", "https://example.org/a.tif"),
        ("/vsis3/bucket/key/a.tif", "s3://bucket/key/a.tif"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
    ],
)
def test_remote_scenes_are_linked_without_secrets(scene, href, tmp_path):
    item = written(write_mask(tmp_path / "mask.tif"), scene)
    assert item["links"][0]["href"] == href
    assert "geheim" not in json.dumps(item)


def test_class_names_are_distinct_for_machines():
    names = [c["name"] for c in classification([*CLASSES, LandClass(9, "water", (0, 0, 0))])]
    assert names == ["roof_script", "class_7", "class_1", "water"]


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        ({"TIFFTAG_DATETIME": "2023:06:01 10:20:30"}, datetime(2023, 6, 1, 10, 20, 30, tzinfo=UTC)),
        ({"TIFFTAG_DATETIME": "2023:06:01"}, datetime(2023, 6, 1, tzinfo=UTC)),
        ({"TIFFTAG_DATETIME": "2023:13:41 10:20:30"}, None),
        ({"TIFFTAG_DATETIME": "yesterday"}, None),
        ({}, None),
    ],
)
def test_acquisition_time_is_read_from_the_tags(tags, time):
    assert acquisition_time(tags) == time


def test_what_is_no_raster_is_told(tmp_path):
    (tmp_path / "mask.tif").write_bytes(b"no raster")
    with pytest.raises(SceneError, match="cannot be read"):
        write_stac_item(MapFiles(tmp_path / "mask.tif", "s.tif"), tmp_path / "item.json")
    mask = write_mask(tmp_path / "good.tif")
    with pytest.raises(OutputError, match="cannot be written"):
        write_stac_item(MapFiles(mask, "s.tif"), tmp_path / "none" / "item.json")


def test_without_the_extra_segment_ends_before_the_work(tmp_path, model_file, monkeypatch, run):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pystac" else find(name, *a))
    scene = write_raster(tmp_path / "scene.tif", landscape(60, 80))
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--stac")
    assert outcome.code == 2
    assert "--stac needs pystac: pip install 'glraster[stac]'" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
