"""Labels of every encoding become class positions on the image's grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.warp import transform_geom
from rasters import HALF_METRE, UTM, landscape, write_raster

from glraster.catalog import IGNORE, Catalog, Encoding, LabelEncoding, Pair
from glraster.config import LandClass
from glraster.errors import CatalogError, LabelError
from glraster.labels.reader import LabelReader
from glraster.labels.scenes import open_labels
from glraster.raster.grid import Window
from glraster.raster.source import OpenRaster

H, W = 30, 40
# ids that ascend nowhere, so that an id taken for a position cannot hide
CLASSES = (LandClass(7, "land", (0, 255, 0)), LandClass(2, "water", (0, 0, 255)), LandClass(0, "roof", (255, 0, 0)))
CLOUD = LandClass(4, "cloud", (255, 255, 255))
ALL = Window(0, 0, H, W)


def catalog(encoding: Encoding = "index", classes: tuple[LandClass, ...] = CLASSES, **changes: Any) -> Catalog:
    labels = {key: changes.pop(key) for key in ("values", "column", "layer", "background") if key in changes}
    return Catalog("test", classes, 3, LabelEncoding(encoding, **labels), ignored=(CLOUD,), **changes)


def ids() -> npt.NDArray[np.uint8]:
    """Rows of land and water with a roof that is symmetric along no axis."""
    values = np.full((H, W), 7, np.uint8)
    values[20:] = 2
    values[3:8, 5:30] = 0
    return values


def positions(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    table = np.full(256, IGNORE, np.uint8)
    table[[7, 2, 0]] = [0, 1, 2]
    return table[values.astype(np.uint8)]


def pair(folder: Path, label: npt.NDArray[Any], name: str = "label.tif", **profile: Any) -> Pair:
    image = write_raster(folder / "image.tif", landscape(H, W))
    return Pair(str(image), str(write_raster(folder / name, label if label.ndim == 3 else label[None], **profile)))


@contextmanager
def opened(pair: Pair, catalog: Catalog) -> Iterator[LabelReader]:
    with OpenRaster(pair.image) as image, open_labels(catalog, pair, image) as reader:
        yield reader


def read(pair: Pair, catalog: Catalog, window: Window = ALL) -> npt.NDArray[np.uint8]:
    with opened(pair, catalog) as reader:
        return reader.read(window)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_index_labels_of_any_dtype(tmp_path: Path, dtype: str) -> None:
    assert np.array_equal(read(pair(tmp_path, ids().astype(dtype)), catalog()), positions(ids()))


def test_values_map_to_ids_and_ids_to_positions(tmp_path: Path) -> None:
    label = ids().astype(np.int32) * 1000 - 5
    values = tuple((int(i) * 1000 - 5, i) for i in (7, 2, 0))
    assert np.array_equal(read(pair(tmp_path, label), catalog(values=values)), positions(ids()))


def test_ignored_classes_values_and_nodata_are_255(tmp_path: Path) -> None:
    label, expected = ids(), positions(ids())
    for row, value in enumerate((CLOUD.id, 9, 255)):
        label[row, 10:20], expected[row, 10:20] = value, IGNORE
    assert np.array_equal(read(pair(tmp_path, label, nodata=255), catalog(ignore=(9,))), expected)


def test_nan_is_ignored(tmp_path: Path) -> None:
    label, expected = ids().astype(np.float32), positions(ids())
    label[0, 0], expected[0, 0] = np.nan, IGNORE
    assert np.array_equal(read(pair(tmp_path, label), catalog()), expected)


def test_masked_pixels_are_ignored(tmp_path: Path) -> None:
    mask = np.ones((H, W), bool)
    mask[4:9, 2:7] = False
    expected = np.where(mask, positions(ids()), IGNORE)
    assert np.array_equal(read(pair(tmp_path, ids(), mask=mask), catalog()), expected)


def test_rgb_labels_are_thresholded(tmp_path: Path) -> None:
    colors = {7: (100, 130, 20), 2: (0, 127, 255), 0: (128, 0, 90)}
    label = np.zeros((3, H, W), np.uint8)
    for class_id, color in colors.items():
        label[:, ids() == class_id] = np.array(color)[:, None]
    label[:, 0, 0] = 250  # white: the ignored class
    expected = positions(ids())
    expected[0, 0] = IGNORE
    assert np.array_equal(read(pair(tmp_path, label), catalog("rgb")), expected)


def test_binary_labels(tmp_path: Path) -> None:
    label = np.where(ids() == 2, 255, 0).astype(np.uint8)
    classes = (LandClass(1, "building", (9, 9, 9)), LandClass(0, "other", (0, 0, 0)))
    assert np.array_equal(read(pair(tmp_path, label), catalog("binary", classes)), (ids() != 2).astype(np.uint8))


def test_a_png_without_georeference_labels_a_geotiff(tmp_path: Path) -> None:
    found = pair(tmp_path, ids(), "label.png", driver="PNG", crs=None, transform=Affine.identity())
    assert np.array_equal(read(found, catalog()), positions(ids()))


@pytest.mark.parametrize("corner", [(-4, -7), (-4, 35), (25, 35), (3, 2), (100, 0)])
def test_windows_reach_beyond_the_scene(tmp_path: Path, corner: tuple[int, int]) -> None:
    window = Window(*corner, 10, 12)
    padded = np.pad(positions(ids()), 120, constant_values=IGNORE)
    expected = padded[window.top + 120 :, window.left + 120 :][:10, :12]
    assert np.array_equal(read(pair(tmp_path, ids()), catalog(), window), expected)


def test_outside_the_window_of_a_pair_all_is_ignored(tmp_path: Path) -> None:
    whole = pair(tmp_path, ids())
    expected = np.full((H, W), IGNORE, np.uint8)
    expected[2:12, 6:26] = positions(ids())[2:12, 6:26]
    part = Pair(whole.image, whole.label, (2, 6, 10, 20))
    assert np.array_equal(read(part, catalog()), expected)
    with opened(part, catalog()) as reader:
        assert reader.extent == Window(2, 6, 10, 20)


def test_a_nodata_value_that_is_a_class_is_doubted(tmp_path: Path) -> None:
    with opened(pair(tmp_path, ids(), nodata=0), catalog()) as reader:
        assert "declares 0 as nodata, which is the class roof" in reader.notes[0]


def polygons(
    folder: Path,
    shapes: list[Any],
    values: npt.NDArray[Any],
    crs: str | None = UTM,
    column: str = "kind",
    name: str = "label.gpkg",
    **options: Any,
) -> Pair:
    """A vector label whose shapes are given in pixels (column, row) of the image."""
    geometries = [shapely.affinity.affine_transform(s, _matrix(HALF_METRE)) for s in shapes]
    if crs not in (None, UTM):
        moved = transform_geom(UTM, crs, [shapely.geometry.mapping(g) for g in geometries])
        geometries = [shapely.geometry.shape(g) for g in moved]
    path = folder / name
    kind = geometries[0].geom_type
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(geometries)), [values], [column], geometry_type=kind, crs=crs, **options
    )
    image = write_raster(folder / "image.tif", landscape(H, W))
    return Pair(str(image), str(path))


def _matrix(transform: Affine) -> list[float]:
    return [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]


SHAPES = [shapely.box(0, 0, W, H), shapely.box(0, 20, W, H), shapely.box(5, 3, 30, 8)]
VECTOR: dict[str, Any] = {"encoding": "vector", "column": "kind"}


@pytest.mark.parametrize("crs", [UTM, "EPSG:3857", "EPSG:4326"])
@pytest.mark.parametrize(
    "values", [np.array([7, 2, 0]), np.array(["land", "water", "roof"], object)], ids=["id", "name"]
)
def test_polygons_of_any_crs_are_burned_and_later_ones_win(tmp_path: Path, crs: str, values: Any) -> None:
    found = polygons(tmp_path, SHAPES, values, crs)
    assert np.array_equal(read(found, catalog(**VECTOR)), positions(ids()))
    window = Window(-3, 8, 26, 20)
    expected = np.pad(positions(ids()), 3, constant_values=IGNORE)[:26, 11:31]
    assert np.array_equal(read(found, catalog(**VECTOR), window), expected)


def test_what_no_polygon_covers_is_background_or_ignored(tmp_path: Path) -> None:
    found = polygons(tmp_path, SHAPES[2:], np.array([0]))
    roof = ids() == 0
    assert np.array_equal(read(found, catalog(**VECTOR)), np.where(roof, 2, IGNORE))
    assert np.array_equal(read(found, catalog(**VECTOR, background=7)), np.where(roof, 2, 0))
    assert (read(found, catalog(**VECTOR, background=7), Window(25, 0, 5, 5)) == 0).all()


def test_vector_values_map_and_are_ignored(tmp_path: Path) -> None:
    found = polygons(tmp_path, SHAPES, np.array(["L", "?", "B"], object))
    expected = positions(ids())
    expected[20:] = IGNORE
    assert np.array_equal(read(found, catalog(**VECTOR, values=(("L", 7), ("B", 0)), ignore=("?",))), expected)


def test_a_geojson_with_numbers_of_any_kind(tmp_path: Path) -> None:
    found = polygons(tmp_path, SHAPES, np.array([7.0, 2.0, 0.0]), "EPSG:4326", name="label.geojson")
    assert np.array_equal(read(found, catalog(**VECTOR)), positions(ids()))


def refused(found: Pair, catalog: Catalog, match: str) -> None:
    with pytest.raises((CatalogError, LabelError), match=match):
        read(found, catalog)


@pytest.mark.parametrize(
    ("label", "changes", "match"),
    [
        (np.full((H, W), 77, np.uint8), {}, r"label.tif: has label values that are no class: 77 \(1200 px\); add them"),
        (np.full((H, W), 7.5, np.float32), {}, r"no class: 7.5 \(1200 px\)"),
        (np.zeros((3, H, W), np.uint8), {}, r"label.tif: has 3 bands, so it is a coloured mask and not index"),
        (np.zeros((1, H, W), np.uint8), {"encoding": "rgb"}, r"has 1 bands and the encoding rgb needs 3"),
        (np.zeros((3, H, W), np.uint16), {"encoding": "rgb"}, r"is uint16, and rgb labels are uint8"),
        (np.zeros((3, H, W), np.uint8), {"encoding": "rgb"}, r"no class: colour \(0, 0, 0\) \(1200 px\)"),
        (np.zeros((H + 1, W), np.uint8), {}, r"label.tif: is 40 x 31 px, its image .*image.tif is 40 x 30 px"),
        (np.zeros((H, W), np.complex64), {}, r"has complex pixels"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(
    tmp_path: Path, label: npt.NDArray[Any], changes: dict[str, Any], match: str
) -> None:
    refused(pair(tmp_path, label), catalog(**changes), match)


def test_another_grid_is_refused_and_rounding_noise_is_not(tmp_path: Path) -> None:
    shifted = HALF_METRE @ Affine.translation(0, 0.3)
    refused(pair(tmp_path, ids(), transform=shifted), catalog(), r"lies 0.3 px off its image .*warp the label")
    refused(pair(tmp_path, ids(), crs="EPSG:32634"), catalog(), r"is in EPSG:32634, its image .* in EPSG:32633")
    read(pair(tmp_path, ids(), transform=HALF_METRE @ Affine.translation(1e-3, 0)), catalog())


def test_a_window_that_leaves_the_image_is_refused(tmp_path: Path) -> None:
    whole = pair(tmp_path, ids())
    refused(
        Pair(whole.image, whole.label, (0, 0, H, W + 1)), catalog(), r"the window \[0, 0, 30, 41\] leaves its 30 x 40"
    )


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    found = polygons(tmp_path, SHAPES, np.array([7, 2, 88]))
    refused(found, catalog(**VECTOR), r"label.gpkg: has label values that are no class: 88 \(125 px\)")
    refused(found, catalog("vector", column="kinds"), r"has no column kinds; did you mean kind\?")
    refused(found, catalog(**VECTOR, layer="x"), r"cannot be read as vectors: Layer 'x' could not be opened")
    refused(Pair(found.image, found.image), catalog(**VECTOR), r"image.tif: cannot be read as vectors")
    refused(Pair(found.image, "/no.gpkg"), catalog(**VECTOR), r"/no.gpkg: does not exist")


def test_points_two_layers_and_a_lacking_crs_are_refused(tmp_path: Path) -> None:
    points = polygons(tmp_path, [shapely.Point(3, 3)], np.array([7]), name="points.gpkg")
    refused(points, catalog(**VECTOR), r"holds Point geometries, not polygons")
    two = polygons(tmp_path, SHAPES[:1], np.array([7]), layer="a")
    polygons(tmp_path, SHAPES[:1], np.array([7]), layer="b", append=True)
    refused(two, catalog(**VECTOR), r"has the layers a, b; choose one by labels.layer")
    assert (read(two, catalog(**VECTOR, layer="b")) == 0).all()
    bare = write_raster(tmp_path / "bare.tif", landscape(H, W), crs=None)
    refused(Pair(str(bare), two.label), catalog(**VECTOR, layer="a"), r"its image has no CRS and it has one")


def test_a_null_class_is_told(tmp_path: Path) -> None:
    found = polygons(tmp_path, SHAPES, np.array(["land", None, "roof"], object))
    refused(found, catalog(**VECTOR), r"no class: null \(400 px\)")
