"""Names and colours of classes come from whatever a file has first; what strangers wrote is checked."""

from __future__ import annotations

import json

import numpy as np
import pyogrio
import pytest
import rasterio
from maps import CLASSES, write_map
from rasters import write_raster, write_vrt

from glraster.config import LandClass, class_color
from glraster.raster.class_names import declared_classes
from glraster.raster.class_raster import ClassRaster
from glraster.raster.writer import CLASSES_TAG

TABLE = """<GDALRasterAttributeTable tableType="thematic" {binning}>{fields}{rows}</GDALRasterAttributeTable>"""


def table(columns, rows, binning=""):
    """An attribute table of (name, type, usage) columns."""
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(columns)
    )
    lines = "".join(f'<Row index="{i}">{"".join(f"<F>{cell}</F>" for cell in row)}</Row>' for i, row in enumerate(rows))
    return TABLE.format(binning=binning, fields=fields, rows=lines)


def categories(*names):
    return f"<CategoryNames>{''.join(f'<Category>{name}</Category>' for name in names)}</CategoryNames>"


@pytest.fixture
def named(tmp_path):
    """The classes that a file names whose side-car holds a text, whose attribute table beside it these columns."""

    def read(sidecar="", vat=None, dtype=np.uint8, colormap=None, **tags):
        path = write_raster(tmp_path / "map.tif", np.ones((1, 4, 5), dtype))
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**tags)
            if colormap:
                dataset.write_colormap(1, colormap)
        if sidecar:
            aux = f'<PAMDataset><PAMRasterBand band="1">{sidecar}</PAMRasterBand></PAMDataset>'
            (tmp_path / "map.tif.aux.xml").write_text(aux, encoding="utf-8")
        if vat is not None:
            columns = [np.array(values, object if isinstance(values[0], str) else None) for values in vat.values()]
            pyogrio.raw.write(
                tmp_path / "vat.dbf", None, columns, list(vat), geometry_type=None, driver="ESRI Shapefile"
            )
            (tmp_path / "vat.dbf").rename(tmp_path / "map.tif.vat.dbf")
        with ClassRaster(str(path)) as raster:
            return raster.named

    return read


def test_a_raster_attribute_table_names_and_colours_classes(named):
    columns = [("Value", 0, 5), ("Count", 0, 1), ("Land", 2, 2), ("R", 0, 6), ("G", 0, 7), ("B", 0, 8)]
    rows = [(300, 9, "fen &amp; bog", 1, 2, 3), (-4, 9, "sea", 4, 5, 6), (7, 0, "", 7, 7, 7)]
    assert named(table(columns, rows), dtype=np.int16) == (
        LandClass(-4, "sea", (4, 5, 6)),
        LandClass(300, "fen & bog", (1, 2, 3)),
    )


def test_columns_are_known_by_their_names_if_gdal_does_not_say_their_use(named):
    rows = [(2, "water"), (1, "land")]
    expected = (LandClass(1, "land", class_color(1)), LandClass(2, "water", class_color(2)))
    assert named(table([("VALUE", 0, 0), ("Class_Name", 2, 0)], rows)) == expected
    assert named(table([("value", 1, 0), ("Landnutzung", 2, 0)], rows)) == expected


def test_the_rows_of_a_table_without_values_are_the_values(named):
    linear = table([("Class_Names", 2, 2)], [("none",), ("",), ("water",)], 'Row0Min="0" BinSize="1"')
    assert [(c.id, c.name) for c in named(linear)] == [(0, "none"), (2, "water")]
    assert named(table([("Class_Names", 2, 2)], [("none",), ("water",)])) == ()


def test_a_vat_dbf_names_classes(named):
    vat = {"Value": [1, 8], "Count": [3, 4], "Class_name": ["Wald", "See"], "Red": [0.0, 0.5], "Green": [1.0, 0.0],
           "Blue": [0.2, 1.0]}  # fmt: skip
    assert named(vat=vat) == (LandClass(1, "Wald", (0, 255, 51)), LandClass(8, "See", (128, 0, 255)))


def test_category_names_count_from_zero(named):
    assert [(c.id, c.name) for c in named(categories("", "urban\n land", "", "sea"))] == [(1, "urban land"), (3, "sea")]


def test_the_first_source_with_names_is_taken(named):
    table_text = table([("Value", 0, 5), ("Class", 2, 2)], [(1, "by table")])
    tag = json.dumps([{"id": 1, "name": "by tag", "color": [1, 2, 3]}])
    vat = {"Value": [1], "Class": ["by dbf"]}
    names = categories("", "by category")
    assert [c.name for c in named(table_text + names, vat, GLRASTER_CLASSES=tag)] == ["by tag"]
    assert [c.name for c in named(table_text + names, vat)] == ["by table"]
    assert [c.name for c in named(names, vat)] == ["by dbf"]
    assert [c.name for c in named(names, {"Value": [1], "Count": [7]})] == ["by category"]


def test_a_colour_table_colours_names_and_names_what_else_it_has(named):
    colormap = {1: (1, 2, 3, 255), 2: (0, 0, 0, 255), 4: (9, 8, 7, 255)}
    assert named(categories("", "land", "water"), colormap=colormap) == (
        LandClass(1, "land", (1, 2, 3)),
        LandClass(2, "water", class_color(2)),
        LandClass(4, "class 4", (9, 8, 7)),
    )


def entry(**changes):
    return {"id": 1, "name": "water", "color": [1, 2, 3]} | changes


@pytest.mark.parametrize(
    "tag",
    [
        "{",
        "7",
        '"text"',
        "[7]",
        "[" * 100_000,
        '[{"id": 1e999, "name": "a", "color": [1, 2, 3]}]',
        f'[{{"id": {"9" * 5000}, "name": "a", "color": [1, 2, 3]}}]',
        json.dumps([entry(id=300)]),
        json.dumps([entry(id=255)]),
        json.dumps([entry(id=-1)]),
        json.dumps([entry(id=1.5)]),
        json.dumps([entry(id=True)]),
        json.dumps([entry(), entry()]),
        json.dumps([entry(name=" ")]),
        json.dumps([entry(name=None)]),
        json.dumps([entry(color=[1, 2])]),
        json.dumps([entry(color=[1, 2, 300])]),
        json.dumps([entry(color=[1, 2, "3"])]),
        json.dumps([entry(color="red")]),
        json.dumps([{"id": 1}]),
        "[" + " " * 1_000_001 + "]",
    ],
    ids=lambda tag: tag[:60],
)
def test_a_damaged_tag_is_left_out_with_a_word(tag, named, caplog):
    assert [c.name for c in named(categories("", "by category"), GLRASTER_CLASSES=tag)] == ["by category"]
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "its tag GLRASTER_CLASSES is damaged and not used"
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a" * 500, "a" * 200), ("bell \x7f", "bell \ufffd"), ("\x9f", "\ufffd"), ("half \ud800", "half \ufffd")],
    ids=["long", "delete", "control", "surrogate"],
)
def test_names_that_cannot_be_shown_are_cleaned_with_a_word(name, shown, named, caplog):
    tag = json.dumps([entry(name=name), entry(id=2, name="two\n lines")])
    assert [c.name for c in named(GLRASTER_CLASSES=tag)] == [shown, "two lines"]
    if name.isascii() or name == "\x9f":
        assert [c.name for c in named(categories("", name, "two\n lines"))] == [shown, "two lines"]
    assert "class 1 has a name of more than 200 characters, or with some that cannot be shown" in caplog.text


@pytest.mark.parametrize(
    "row",
    [("1e999", "a"), ("nan", "a"), ("x", "a"), ("99999999999", "a"), ("1.5", "a"), ("1",)],
    ids=str,
)
def test_rows_that_say_nothing_are_left_out(row, named):
    rows = [row, (2, "sea")]
    assert [(c.id, c.name) for c in named(table([("Value", 2, 5), ("Class", 2, 2)], rows))] == [(2, "sea")]


def test_the_names_of_a_mosaic_are_read_without_its_sources(tmp_path):
    tile = write_raster(tmp_path / "tile.tif", np.ones((1, 4, 5), np.uint8))
    mosaic = write_vrt(tmp_path / "mosaic.vrt", [(tile.name, 1, "Byte")] * 2, 4, 5, relative=True)
    head, alpha = "<ColorInterp>Gray</ColorInterp>", "<ColorInterp>Alpha</ColorInterp>"
    text = mosaic.read_text()
    for band, inside in ((1, alpha), (2, head + categories("", "land"))):
        text = text.replace(f'band="{band}">', f'band="{band}">{inside}')
    mosaic.write_text(text)
    with ClassRaster(str(mosaic)) as raster:
        assert [(c.id, c.name) for c in raster.named] == [(1, "land")]


def test_a_side_car_that_is_no_xml_names_nothing(named, tmp_path):
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset><")
    (tmp_path / "map.tif.vat.dbf").write_bytes(b"no table")
    assert named() == ()


def test_declared_classes_are_those_of_the_tag(tmp_path):
    with rasterio.open(write_map(tmp_path / "map.tif", np.ones((9, 9), np.uint8))) as dataset:
        assert CLASSES_TAG in dataset.tags()
        assert declared_classes(dataset) == CLASSES
