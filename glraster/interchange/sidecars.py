"""Files beside a finished mask for other programs: its STAC item and its QGIS style."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import quoteattr

import rasterio
from rasterio.errors import RasterioError

from glraster.config import LandClass
from glraster.errors import SceneError, require_extra
from glraster.files import claim, item_path, style_path, write_file
from glraster.interchange.stac import STAC_EXTRA, MapFiles, acquisition_time, write_stac_item
from glraster.raster.class_names import declared_classes
from glraster.raster.remote import remote_settings
from glraster.raster.source import reason
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


@dataclass(frozen=True)
class Sidecars:
    """Which files to write beside a mask: `stac` its STAC item `*.stac.json`, `qml` its QGIS style `*.qml`."""

    stac: bool = False
    qml: bool = False

    def paths(self, mask: Path) -> tuple[Path, ...]:
        """The files that will be written."""
        return (*((style_path(mask),) if self.qml else ()), *((item_path(mask),) if self.stac else ()))


def check_sidecars(mask: str | os.PathLike[str], sidecars: Sidecars, *, overwrite: bool = False) -> None:
    """Refuse side-cars that exist or cannot be made, before a mask is computed for them.

    Raises:
        OutputError: a file exists.
        UsageError: the extra `stac` is not installed.
    """
    if sidecars.stac:
        require_extra("stac", STAC_EXTRA, "--stac")
    claim(*sidecars.paths(Path(mask)), overwrite=overwrite)


def write_sidecars(
    scene: str | os.PathLike[str],
    mask: str | os.PathLike[str],
    sidecars: Sidecars,
    *,
    confidence: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
) -> tuple[Path, ...]:
    """Write files beside a finished mask; each appears whole or not at all and replaces what was there.

    Args:
        scene: the scene of the mask, as given to `segment`.
        mask: a map that `segment` wrote.
        sidecars: the files to write.
        confidence, probabilities: rasters of the same run, for the STAC item.

    Returns:
        The paths of the files.

    Raises:
        SceneError: the mask cannot be read.
        OutputError: a file cannot be written.
    """
    mask = Path(mask)
    style = style_path(mask) if sidecars.qml else None
    if style is not None:
        write_qml(_classes(mask), style)
    if sidecars.stac:
        beside = [None if path is None else Path(path) for path in (confidence, probabilities)]
        files = MapFiles(mask, os.fspath(scene), beside[0], beside[1], style)
        write_stac_item(files, item_path(mask), _acquired(os.fspath(scene)))
    return sidecars.paths(mask)


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


def _classes(mask: Path) -> tuple[LandClass, ...]:
    try:
        with rasterio.open(mask) as dataset:
            return declared_classes(dataset)
    except RasterioError as error:
        raise SceneError(f"{mask}: cannot be read: {reason(error, str(mask))}") from error


def _acquired(scene: str) -> datetime | None:
    try:
        with remote_settings(scene), rasterio.open(scene) as dataset:
            return acquisition_time(dataset.tags())
    except (RasterioError, UnicodeDecodeError):
        return None  # the date is optional: do not fail a map that is finished
