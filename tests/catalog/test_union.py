"""Several catalogs as one: classes by name, classes that stand for several, and what must agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from glraster.catalog import Catalog, LabelEncoding, Pair, load_catalog, unite, write_catalog
from glraster.config import LandClass
from glraster.errors import CatalogError

LAND = Catalog(
    "land",
    (LandClass(0, "building", (1, 0, 0)), LandClass(4, "road", (2, 0, 0)), LandClass(7, "field", (3, 0, 0))),
    bands=3,
    labels=LabelEncoding("index"),
    train=(Pair("a.tif", "a_label.tif"),),
    licence="CC0",
    source="land.yaml",
)
HOUSES = Catalog(
    "houses",
    (LandClass(0, "other", (9, 0, 0)), LandClass(1, "building", (8, 0, 0))),
    bands=3,
    labels=LabelEncoding("index"),
    train=(Pair("b.tif", "b_label.tif"), Pair("c.tif", "c_label.tif")),
    gsd_m=0.3,
    stands_for=((0, ("road", "field")),),
    source="houses.yaml",
)


def test_a_catalog_alone_is_its_own_union():
    union = unite(HOUSES)
    assert union.classes == HOUSES.classes
    assert union.groups == ()
    assert union.content_hash == HOUSES.content_hash
    assert [member.labels for member in union.members("train")] == [(0, 1), (0, 1)]


def test_classes_of_one_name_are_one_and_groups_follow():
    union = unite(LAND, HOUSES)
    assert [(c.id, c.name) for c in union.classes] == [(0, "building"), (4, "road"), (7, "field")]
    assert [(group.name, group.members) for group in union.groups] == [("other", (1, 2))]
    assert union.labels == ((0, 1, 2), (3, 0))
    assert [Path(member.pair.image).stem for member in union.members("train")] == ["a", "b", "c"]
    assert union.gsd_m == 0.3
    assert union.licence == "CC0"
    assert union.content_hash not in (LAND.content_hash, HOUSES.content_hash)


def test_an_id_that_is_taken_gives_way():
    other = replace(LAND, classes=(LandClass(4, "lake", (0, 0, 9)), LandClass(0, "road", (2, 0, 0))))
    assert [(c.id, c.name) for c in unite(LAND, other).classes][3:] == [(1, "lake")]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(HOUSES, bands=4), r"houses\.yaml: has 4 bands, land\.yaml has 3"),
        (replace(HOUSES, stands_for=((0, ("road", "lake")),)), r"'other' stands for 'lake', which no catalog has"),
        (
            replace(HOUSES, stands_for=((1, ("road", "field")),)),
            "gives a class any_of, in which another catalog differs",
        ),
    ],
)
def test_what_must_agree(other, message):
    with pytest.raises(CatalogError, match=message):
        unite(LAND, other)


def test_catalogs_of_other_ground_sample_distances_are_refused():
    with pytest.raises(CatalogError, match=r"is read at gsd_m 0\.5, houses\.yaml at 0\.3; give both the same"):
        unite(LAND, HOUSES, replace(LAND, gsd_m=0.5))


def test_any_of_is_read_and_written(tmp_path):
    write_catalog(replace(HOUSES, root=str(tmp_path), source=""), tmp_path / "houses.yaml")
    assert load_catalog(tmp_path / "houses.yaml").stands_for == HOUSES.stands_for


@pytest.mark.parametrize("names", ["[road]", "[road, road]", "[other, road]"])
def test_any_of_names_several_others(tmp_path, names):
    (tmp_path / "c.yaml").write_text(
        "name: x\nclasses:\n"
        f"  - {{id: 0, name: other, color: [0, 0, 0], any_of: {names}}}\n"
        "  - {id: 1, name: building, color: [1, 1, 1]}\n"
        "bands: 3\nlabels: {encoding: index}\nsplits: {train: []}\n"
    )
    with pytest.raises(CatalogError, match="any_of: must name two or more other classes, each once"):
        load_catalog(tmp_path / "c.yaml")
