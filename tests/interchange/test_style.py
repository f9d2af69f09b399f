"""The QGIS style beside a mask, and the side-car of GDAL: whatever stands in a class name."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasters import HALF_METRE, UTM

from glraster.config import LandClass
from glraster.files import style_path
from glraster.interchange.sidecars import qml, write_qml
from glraster.raster.grid import Window
from glraster.raster.writer import CogWriter, RasterForm

NASTY = '<script>&"'


def entries(text: str) -> list[tuple[str, str, str]]:
    renderer = ET.fromstring(text).find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    return [(e.get("value"), e.get("label"), e.get("color")) for e in renderer.findall("colorPalette/paletteEntry")]


def test_style_names_and_colours_every_class(tmp_path):
    path = style_path(tmp_path / "mask.tif")
    write_qml((LandClass(3, NASTY, (200, 30, 31)), LandClass(1, "water", (0, 9, 255))), path)
    assert path.name == "mask.qml"
    assert entries(path.read_text(encoding="utf-8")) == [("3", NASTY, "#c81e1f"), ("1", "water", "#0009ff")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.qml"]


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5))
def test_any_text_survives_the_round_trip_or_is_marked(names):
    read = [label for _, label, _ in entries(qml([LandClass(i, name, (0, 0, 0)) for i, name in enumerate(names)]))]
    for name, label in zip(names, read, strict=True):
        assert len(label) == len(name)
        assert all(a == b or b == "\ufffd" for a, b in zip(name, label, strict=True))
        assert name.isprintable() <= (label == name)


def test_gdal_reads_class_names_back(tmp_path):
    names = [NASTY, "a\x01b"]
    form = RasterForm(4, 4, UTM, HALF_METRE, tuple(LandClass(i, n, (i, 2, 3)) for i, n in enumerate(names)))
    with CogWriter(tmp_path / "mask.tif", form) as writer:
        writer.write(Window(0, 0, 4, 4), np.zeros((4, 4), np.uint8))
        writer.finish()
        writer.publish()
    root = ET.parse(tmp_path / "mask.tif.aux.xml").getroot()
    assert [c.text for c in root.iter("Category")] == [NASTY, "a\ufffdb"]
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.colormap(1)[1] == (1, 2, 3, 255)


def test_a_link_in_the_place_of_the_style_is_replaced_and_its_target_kept(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    link = Path(tmp_path / "mask.qml")
    link.symlink_to(target)
    write_qml((LandClass(0, "a", (0, 0, 0)),), link)
    assert target.read_text() == "precious"
    assert not link.is_symlink()
