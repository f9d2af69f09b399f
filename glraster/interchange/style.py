"""A QGIS style beside a mask: its values as a legend with names and colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from glraster.config import LandClass
from glraster.files import write_file
from glraster.raster.writer import xml_characters

_STYLE = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22" styleCategories="Symbology">
  <pipe>
    <provider>
      <resampling enabled="false" zoomedInResamplingMethod="nearestNeighbour" zoomedOutResamplingMethod="nearestNeighbour" maxOversampling="2"/>
    </provider>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <rasterTransparency/>
      <colorPalette>
{entries}
      </colorPalette>
    </rasterrenderer>
    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
    <huesaturation colorizeOn="0" saturation="0" grayscaleMode="0"/>
    <rasterresampler maxOversampling="2"/>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
"""  # noqa: E501


def qml(classes: Sequence[LandClass]) -> str:
    """A QGIS style with one palette entry per class, in their order."""
    entries = "\n".join(
        f'        <paletteEntry value="{c.id}" color="#{bytes(c.color).hex()}" alpha="255" '
        f"label={quoteattr(xml_characters(c.name))}/>"
        for c in classes
    )
    return _STYLE.format(entries=entries)


def write_qml(classes: Sequence[LandClass], path: Path) -> None:
    """Write the QGIS style of a mask; it appears whole or not at all and replaces what was there.

    Args:
        classes: names and colours of the mask's values.
        path: usually `style_path(mask)`.

    Raises:
        OutputError: it cannot be written.
    """
    write_file(path, qml(classes))
