"""`glraster evaluate` with points as truth: areas with their intervals, after Olofsson et al. 2014."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from maps import CLASSES, IDS, disturbed, patches, write_map, write_shapes
from rasterio.warp import transform as transform_points
from rasters import HALF_METRE, UTM

H, W = 300, 420


def points_at(rows, columns):
    """A point anywhere in each of these pixels."""
    rng = np.random.default_rng(4)
    x, y = HALF_METRE @ (columns + rng.random(len(columns)), rows + rng.random(len(rows)))
    return shapely.points(x, y)


@pytest.fixture
def stratified(tmp_path):
    """A map, and for every mapped class 60 points with their true class."""
    truth = patches(H, W)
    ids = disturbed(truth, 0.25)
    ids[:50, :80] = 255
    rng = np.random.default_rng(9)
    places = [np.argwhere(ids == c)[rng.choice((ids == c).sum(), 60, replace=False)] for c in IDS]
    rows, columns = np.concatenate(places).T
    mask = write_map(tmp_path / "map.tif", ids)
    return mask, points_at(rows, columns), truth[rows, columns], (ids, truth, rows, columns)


def test_points_are_counted_where_they_lie(stratified, evaluated, tmp_path):
    mask, points, values, (ids, _, rows, columns) = stratified
    found = evaluated(mask, write_shapes(tmp_path / "p.gpkg", list(points), values.tolist()))
    expected = [[int(((values == t) & (ids[rows, columns] == m)).sum()) for m in IDS] for t in IDS]
    assert found["confusion"] == expected
    assert (found["kind"], found["points"], found["points_left_out"]) == ("points", 180, 0)


def test_mapped_areas_are_those_of_the_pixels(stratified, evaluated, tmp_path):
    mask, points, values, (ids, *_) = stratified
    found = evaluated(mask, write_shapes(tmp_path / "p.gpkg", list(points), values.tolist()))
    assert found["unit"] == "m2"
    for entry, c in zip(found["classes"], IDS, strict=True):
        # UTM's scale differs from one by up to 0.1 %
        assert entry["mapped_area"] == pytest.approx((ids == c).sum() * 0.25, rel=2e-3)


def test_points_in_another_crs_and_with_names_are_the_same(stratified, evaluated, tmp_path):
    mask, points, values, _ = stratified
    names = {c.id: c.name for c in CLASSES}
    lon, lat = transform_points(UTM, "EPSG:4326", shapely.get_x(points).tolist(), shapely.get_y(points).tolist())
    own = write_shapes(tmp_path / "own.gpkg", list(points), values.tolist())
    far = write_shapes(
        tmp_path / "far.gpkg", list(shapely.points(lon, lat)), [names[v] for v in values], "class", "EPSG:4326"
    )
    first, second = evaluated(mask, own), evaluated(mask, far)
    assert first["confusion"] == second["confusion"]
    assert first["classes"] == second["classes"]


def test_points_beyond_the_map_are_left_out_and_counted(stratified, evaluated, tmp_path):
    mask, points, values, _ = stratified
    outside = points_at(np.array([-5, 10, 20]), np.array([10, W + 3, 30]))  # the last is on nodata
    file = write_shapes(tmp_path / "p.gpkg", [*points, *outside], [*values.tolist(), 3, 3, 3])
    found = evaluated(mask, file)
    assert (found["points"], found["points_left_out"]) == (180, 3)


def test_a_mapped_class_with_too_few_points_is_named(stratified, run, tmp_path):
    mask, points, values, (ids, _, rows, columns) = stratified
    kept = ids[rows, columns] != 1
    kept[np.flatnonzero(~kept)[0]] = True
    outcome = run("evaluate", mask, write_shapes(tmp_path / "p.gpkg", list(points[kept]), values[kept].tolist()))
    assert outcome.code == 1
    assert "water" in outcome.err
    assert "1 points" in outcome.err


def test_a_strange_class_is_named(stratified, run, tmp_path):
    mask, points, _, _ = stratified
    outcome = run("evaluate", mask, write_shapes(tmp_path / "p.gpkg", list(points), ["swamp"] * len(points)))
    assert outcome.code == 1
    assert "no class: swamp" in outcome.err


def test_a_column_must_be_found(stratified, run, tmp_path):
    mask, points, values, _ = stratified
    file = write_shapes(tmp_path / "p.gpkg", list(points), values.tolist(), "seen_in_field")
    assert "one of seen_in_field" in run("evaluate", mask, file).err
    assert run("evaluate", mask, file, "--column", "seen_in_field").code == 0


def test_table_tells_areas_with_their_margins(stratified, run, tmp_path):
    mask, points, values, _ = stratified
    outcome = run("evaluate", mask, write_shapes(tmp_path / "p.gpkg", list(points), values.tolist()))
    assert outcome.code == 0, outcome.err
    assert "±" in outcome.out
    assert "Olofsson" in outcome.out
