"""Files beside a finished mask for other programs: its STAC item and its QGIS style."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from glraster.config import LandClass
from glraster.errors import SceneError, require_extra
from glraster.files import claim, item_path, style_path
from glraster.interchange.stac import STAC_EXTRA, MapFiles, acquisition_time, write_stac_item
from glraster.interchange.style import write_qml
from glraster.raster.class_names import declared_classes
from glraster.raster.remote import remote_settings
from glraster.raster.source import reason


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
