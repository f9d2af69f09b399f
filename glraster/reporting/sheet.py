"""A map with its legend as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from glraster.reporting.figures import area, css_color, grouped, ink_on, percent
from glraster.reporting.pictures import class_picture
from glraster.reporting.records import AreaRow
from glraster.reporting.spots import Spot

_INK, _SOFT, _LINE, _PAPER = "#1b2327", "#5a666d", "#9aa5aa", "#ffffff"
_FONTS = {"plain": ("DejaVuSans.ttf", "Arial.ttf"), "bold": ("DejaVuSans-Bold.ttf", "Arial Bold.ttf")}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Sheet:
    """What is drawn: class indexes (H, W), 255 for none, with a legend in the order of `areas`.

    `metres_per_px` is of a pixel of `indexes`, None where unknown; `foot` stands below in small print.
    """

    title: str
    indexes: npt.NDArray[np.uint8]
    areas: tuple[AreaRow, ...]
    spots: tuple[Spot, ...]
    metres_per_px: float | None
    foot: str


def draw(sheet: Sheet) -> bytes:
    """Draw a sheet as PNG: the map at the left, its legend beside it, classes told by number as well as by colour."""
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
    words = pen.font("plain", 0.85)
    canvas.text((page.width - 2 * unit, foot + unit // 2), sheet.foot, _SOFT, words, anchor="ra")
    stream = BytesIO()
    page.save(stream, "PNG", optimize=True)
    return stream.getvalue()


class _Pen:
    """Draws the parts of one sheet; `unit` is the size of its letters in pixels."""

    def __init__(self, unit: int, sheet: Sheet) -> None:
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
            for column, words in zip((1, 2), texts[1:], strict=True):
                x += self._columns[column - 1] if column == 1 else 0
                x += self._columns[column] + (unit if column == 1 else 2 * unit)
                canvas.text((x, middle), words, _SOFT, plain, anchor="rm")

    def numbers(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
        """The classes' numbers in the middle of their largest patches."""
        height, width = self.sheet.indexes.shape
        radius, small = round(0.85 * self.unit), self.font("bold", 0.85)
        for spot in self.sheet.spots:
            land = self.sheet.areas[spot.index].land
            x, y = place[0] + round(spot.x * width), place[1] + round(spot.y * height)
            box = (x - radius, y - radius, x + radius, y + radius)
            canvas.ellipse(box, css_color(land.color), "#ffffff", max(1, self.unit // 8))
            canvas.text((x, y), str(land.id), ink_on(land.color), small, anchor="mm")

    def scale_bar(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
        """A bar of a round length, about a fifth of the map's width; none where the map tells no metres."""
        size = self.sheet.metres_per_px
        if size is None:
            return
        longest = self.sheet.indexes.shape[1] / 5 * size
        power = 10.0 ** int(f"{longest:e}".split("e")[1])
        metres = max(power * m for m in (1, 2, 5) if power * m <= longest)
        (left, top), length = place, round(metres / size)
        canvas.rectangle((left, top, left + length, top + self.unit // 3), _INK)
        canvas.rectangle((left + length // 2, top + 1, left + length - 1, top + self.unit // 3 - 1), _PAPER)
        told = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        canvas.text(
            (left + length + self.unit // 2, top + self.unit // 6), told, _INK, self.font("plain", 0.9), anchor="lm"
        )


def _legend_texts(row: AreaRow, rows: Sequence[AreaRow]) -> tuple[str, str, str]:
    total = max(1, sum(other.pixels for other in rows))
    size = f"{grouped(row.pixels)} px" if row.area_m2 is None else area(row.area_m2)
    name = row.land.name if len(row.land.name) <= 32 else row.land.name[:31] + "…"
    return name, percent(row.pixels / total), size.replace("\u202f", " ")
