"""Draw a map with its legend as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from glraster.errors import UsageError
from glraster.evaluation.truth import own_classes
from glraster.files import claim, write_file
from glraster.raster.class_raster import ClassRaster
from glraster.raster.georef import gsd_m
from glraster.raster.source import gdal_session, input_files
from glraster.reporting.formatting import area, css_color, grouped, ink_on, percent
from glraster.reporting.pictures import class_picture
from glraster.reporting.records import AreaRow
from glraster.reporting.spots import Spot, shrink, spots

_LEAST_PX, _MOST_PX = 64, 8192
_INK, _SOFT, _LINE, _PAPER = "#1b2327", "#5a666d", "#9aa5aa", "#ffffff"
_FONTS = {"plain": ("DejaVuSans.ttf", "Arial.ttf"), "bold": ("DejaVuSans-Bold.ttf", "Arial Bold.ttf")}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class PreviewOptions:
    """How to draw: `size` is the longer side of the map in pixels, `title` the mask's file name if None."""

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
        GlrasterError: a file or an option is wrong; the message says what to do.

    Memory depends on the size of the picture.
    """
    settings, target = options or PreviewOptions(), Path(output)
    if not _LEAST_PX <= settings.size <= _MOST_PX:
        raise UsageError(f"--size {settings.size} must lie between {_LEAST_PX} and {_MOST_PX}")
    if target.suffix.lower() != ".png":
        raise UsageError(f"{target}: a preview is a PNG; give a name that ends in .png")
    claim(target, inputs=input_files(mask), overwrite=settings.overwrite)
    with gdal_session(), ClassRaster(str(mask)) as opened:
        png = _draw(_sheet(opened, settings))
    write_file(target, png)
    return target


@dataclass(frozen=True)
class _Sheet:
    """The map as class indexes (H, W), 255 for none, with a legend in the order of `areas`.

    `metres_per_px` is the size of a pixel of `indexes`, None if unknown; `foot` stands below in small print.
    """

    title: str
    indexes: npt.NDArray[np.uint8]
    areas: tuple[AreaRow, ...]
    spots: tuple[Spot, ...]
    metres_per_px: float | None
    foot: str


def _sheet(mask: ClassRaster, options: PreviewOptions) -> _Sheet:
    indexes = own_classes(mask.classes).table[mask.overview(options.size)]
    pixels, area_m2 = mask.areas()
    rows = tuple(AreaRow(c, int(pixels[c.id]), None if area_m2 is None else float(area_m2[c.id])) for c in mask.classes)
    size = gsd_m(mask.crs, mask.transform, *mask.shape)
    height, width = mask.shape
    epsg = mask.crs.to_epsg() if mask.crs else None
    model = mask.tags.get("GLRASTER_MODEL")
    facts = [f"{width} × {height} px", f"EPSG:{epsg}" if epsg else "", f"model {model}" if model else ""]
    return _Sheet(
        title=options.title or Path(mask.path).name,
        indexes=indexes,
        areas=rows,
        spots=spots(shrink(indexes), len(mask.classes)),
        metres_per_px=None if size is None else size[1] * width / indexes.shape[1],
        foot=", ".join(fact for fact in facts if fact),
    )


def _draw(sheet: _Sheet) -> bytes:
    """Draw a sheet as PNG: the map at the left, its legend beside it. Numbers name the classes, not colour alone."""
    height, width = sheet.indexes.shape
    unit = max(9, round(max(height, width) / 62))
    pen = _Pen(unit, sheet)
    left, top = 2 * unit, round(4.6 * unit)
    page = Image.new(
        "RGB", (left + width + pen.legend_width + 4 * unit, top + max(height, pen.legend_height) + 4 * unit), _PAPER
    )
    canvas = ImageDraw.Draw(page)
    canvas.text((left, round(1.4 * unit)), sheet.title, _INK, pen.font("bold", 1.6))
    colors = [row.land.color for row in sheet.areas]
    picture = Image.open(BytesIO(class_picture(sheet.indexes, colors).data)).convert("RGBA")
    page.paste(picture, (left, top), picture)
    canvas.rectangle((left - 1, top - 1, left + width, top + height), outline=_LINE)
    pen.numbers(canvas, (left, top))
    pen.legend(canvas, (left + width + 2 * unit, top))
    foot = top + max(height, pen.legend_height) + unit
    pen.scale_bar(canvas, (left, foot))
    small = pen.font("plain", 0.85)
    canvas.text((page.width - 2 * unit, foot + unit // 2), sheet.foot, _SOFT, small, anchor="ra")
    stream = BytesIO()
    page.save(stream, "PNG", optimize=True)
    return stream.getvalue()


class _Pen:
    """Draws the parts of one sheet; `unit` is the size of its letters in pixels."""

    def __init__(self, unit: int, sheet: _Sheet) -> None:
        self.unit, self.sheet = unit, sheet
        self._rows = [_legend_texts(row, sheet.areas) for row in sheet.areas]
        plain = self.font("plain", 1.0)
        self._columns = [max((round(plain.getlength(row[i])) for row in self._rows), default=0) for i in range(3)]
        self.legend_width = round(2.9 * unit) + sum(self._columns) + 3 * unit
        self.legend_height = round((1.9 + 2.1 * len(self._rows)) * unit)

    def font(self, kind: str, size: float) -> Font:
        pixels = round(size * self.unit)
        for name in _FONTS[kind]:
            try:
                return ImageFont.truetype(name, pixels)
            except OSError:
                continue
        return ImageFont.load_default(pixels)

    def legend(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
        """Swatch with number, name, share and area of every class."""
        unit, (left, top) = self.unit, place
        canvas.text((left, top), "Classes", _INK, self.font("bold", 1.0))
        plain, small = self.font("plain", 1.0), self.font("bold", 0.8)
        for i, (row, texts) in enumerate(zip(self.sheet.areas, self._rows, strict=True)):
            y = top + round((1.9 + 2.1 * i) * unit)
            box = (left, y, left + 2 * unit, y + round(1.5 * unit))
            canvas.rounded_rectangle(box, unit // 4, css_color(row.land.color), _LINE)
            middle = y + round(0.75 * unit)
            canvas.text((left + unit, middle), str(row.land.id), ink_on(row.land.color), small, anchor="mm")
            x = left + round(2.9 * unit)
            canvas.text((x, middle), texts[0], _INK, plain, anchor="lm")
            for column, text in zip((1, 2), texts[1:], strict=True):
                x += self._columns[column - 1] if column == 1 else 0
                x += self._columns[column] + (unit if column == 1 else 2 * unit)
                canvas.text((x, middle), text, _SOFT, plain, anchor="rm")

    def numbers(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
        """The number of each class in the middle of its largest patches."""
        height, width = self.sheet.indexes.shape
        radius, small = round(0.85 * self.unit), self.font("bold", 0.85)
        for spot in self.sheet.spots:
            land = self.sheet.areas[spot.index].land
            x, y = place[0] + round(spot.x * width), place[1] + round(spot.y * height)
            box = (x - radius, y - radius, x + radius, y + radius)
            canvas.ellipse(box, css_color(land.color), "#ffffff", max(1, self.unit // 8))
            canvas.text((x, y), str(land.id), ink_on(land.color), small, anchor="mm")

    def scale_bar(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
        """A bar of a round length, at most a fifth of the map's width; none without metres per pixel."""
        size = self.sheet.metres_per_px
        if size is None:
            return
        longest = self.sheet.indexes.shape[1] / 5 * size
        power = 10.0 ** int(f"{longest:e}".split("e")[1])
        metres = max(power * m for m in (1, 2, 5) if power * m <= longest)
        (left, top), length = place, round(metres / size)
        canvas.rectangle((left, top, left + length, top + self.unit // 3), _INK)
        canvas.rectangle((left + length // 2, top + 1, left + length - 1, top + self.unit // 3 - 1), _PAPER)
        label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        place = (left + length + self.unit // 2, top + self.unit // 6)
        canvas.text(place, label, _INK, self.font("plain", 0.9), anchor="lm")


def _legend_texts(row: AreaRow, rows: Sequence[AreaRow]) -> tuple[str, str, str]:
    total = max(1, sum(other.pixels for other in rows))
    size = f"{grouped(row.pixels)} px" if row.area_m2 is None else area(row.area_m2)
    name = row.land.name if len(row.land.name) <= 32 else row.land.name[:31] + "…"
    return name, percent(row.pixels / total), size.replace("\u202f", " ")
