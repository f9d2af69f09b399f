"""The grid of a raster, and whether a label lies on the grid of its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from affine import Affine
from rasterio.crs import CRS

from glraster.errors import CatalogError, GlrasterError, LabelError
from glraster.names import is_path
from glraster.raster.grid import Window
from glraster.raster.source import OpenRaster

TOLERANCE_PX = 0.1
"""How far the corners of a label may lie from those of its image."""

T = TypeVar("T")


@dataclass(frozen=True)
class ImageGrid:
    """The grid of a raster: `shape` is (height, width); one without a transform is not georeferenced."""

    path: str
    shape: tuple[int, int]
    crs: CRS | None
    transform: Affine

    @property
    def extent(self) -> Window:
        return Window(0, 0, *self.shape)

    @property
    def georeferenced(self) -> bool:
        return not (self.transform.is_identity or self.transform.is_degenerate)

    def mismatch(self, label: ImageGrid, own_role: str = "its image") -> str | None:
        """How a label's grid differs from this one.

        Args:
            label: the label's grid.
            own_role: what this raster is to the label, for the message.

        Returns:
            The difference in words; None if there is none, or if sizes agree and one of both has no georeference.
        """
        own = f"{own_role} {self.path}"
        if label.shape != self.shape:
            label_size, own_size = (f"{width} x {height} px" for height, width in (label.shape, self.shape))
            return f"is {label_size}, {own} is {own_size}"
        if not (self.georeferenced and label.georeferenced):
            return None
        if self.crs is not None and label.crs is not None and self.crs != label.crs:
            return f"is in {_name(label.crs)}, {own} in {_name(self.crs)}"
        shift = self._shift_px(label)
        if shift > TOLERANCE_PX:
            return f"lies {shift:.3g} px off {own}"
        return None

    def _shift_px(self, label: ImageGrid) -> float:
        """The largest distance between a corner of the label and the same corner here, in pixels."""
        height, width = self.shape
        shifts: list[float] = []
        for corner in ((0, 0), (width, 0), (0, height), (width, height)):
            column, row = ~self.transform @ (label.transform @ corner)
            shifts.append(max(abs(column - corner[0]), abs(row - corner[1])))
        return max(shifts)


class LabelRaster(OpenRaster):
    """An open raster of label values. Raises LabelError if it cannot be opened or read."""

    error = LabelError


def require_file(name: str, advice: str) -> None:
    """Raise a LabelError with this advice if a local file does not exist."""
    if is_path(name) and not Path(name).exists():
        raise LabelError("does not exist", where=name, advice=advice)


def grid_of(raster: OpenRaster) -> ImageGrid:
    """The grid of an open raster."""
    return ImageGrid(raster.path, raster.shape, raster.crs, raster.transform)


def attempt(problems: list[str], action: Callable[[], T]) -> T | None:
    """Run an action; if it fails, add what went wrong to `problems` and return None."""
    try:
        return action()
    except CatalogError as error:
        problems += [f"{error.where}: {text}" if error.where else text for text in error.problems]
    except GlrasterError as error:
        problems.append(str(error))
    return None


def _name(crs: CRS) -> str:
    return str(crs.to_string())[:60]
