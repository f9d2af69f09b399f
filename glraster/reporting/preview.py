"""Draw a map with its legend."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glraster.errors import OutputError, UsageError
from glraster.evaluation.truth import own_classes
from glraster.raster.georef import gsd_m
from glraster.raster.mask import Mask
from glraster.raster.opening import gdal_session
from glraster.reporting.records import AreaRow
from glraster.reporting.sheet import Sheet, draw
from glraster.reporting.spots import shrink, spots

_LEAST_PX, _MOST_PX = 64, 8192


@dataclass(frozen=True)
class PreviewOptions:
    """How to draw: the longer side of the map in pixels, a title (the file's name if None)."""

    size: int = 1200
    title: str | None = None
    overwrite: bool = False


def preview(mask: str | Path, output: str | Path, options: PreviewOptions | None = None) -> Path:
    """Write a PNG of a map with its legend, areas and a scale bar.

    Args:
        mask: a mask of class ids.
        output: the PNG.
        options: see `PreviewOptions`.

    Raises:
        GlrasterError: for all a user can put right.

    Memory depends on the size of the picture.
    """
    chosen, target = options or PreviewOptions(), Path(output)
    if not _LEAST_PX <= chosen.size <= _MOST_PX:
        raise UsageError(f"--size {chosen.size} must lie between {_LEAST_PX} and {_MOST_PX}")
    if target.suffix.lower() != ".png":
        raise UsageError(f"{target}: a preview is a PNG; give a name that ends in .png")
    if os.path.lexists(target) and not chosen.overwrite:
        raise OutputError(f"{target}: exists; use --overwrite to replace it")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target}: its folder does not exist; create it first")
    with gdal_session(), Mask(str(mask)) as opened:
        written = draw(_sheet(opened, chosen))
    temporary = target.with_name(target.name + ".part")
    try:
        temporary.write_bytes(written)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def _sheet(mask: Mask, options: PreviewOptions) -> Sheet:
    indexes = own_classes(mask.classes).table[mask.overview(options.size)]
    pixels, area = mask.areas()
    rows = tuple(AreaRow(c, int(pixels[c.id]), None if area is None else float(area[c.id])) for c in mask.classes)
    size = gsd_m(mask.crs, mask.transform, *mask.shape)
    height, width = mask.shape
    code = mask.crs.to_epsg() if mask.crs else None
    told = [f"{width} × {height} px", f"EPSG:{code}" if code else "", mask.tags.get("GLRASTER_MODEL", "")]
    told[2] = f"model {told[2]}" if told[2] else ""
    return Sheet(
        title=options.title or Path(mask.path).name,
        indexes=indexes,
        areas=rows,
        spots=spots(shrink(indexes), len(mask.classes)),
        metres_per_px=None if size is None else size[1] * width / indexes.shape[1],
        foot=", ".join(part for part in told if part),
    )
