"""The rasters that a catalog names, and whether an image and its label lie on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from affine import Affine
from rasterio.crs import CRS

from glraster.errors import CatalogError
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

    def mismatch(self, label: ImageGrid) -> str | None:
        """How a label's grid differs from this image's; None where it does not, or where one has no georeference."""
        if label.shape != self.shape:
            theirs, own = (f"{width} x {height} px" for height, width in (label.shape, self.shape))
            return f"{label.path}: is {theirs}, its image {self.path} is {own}; both must be on one grid"
        if not (self.georeferenced and label.georeferenced):
            return None
        if self.crs is not None and label.crs is not None and self.crs != label.crs:
            return f"{label.path}: is in {_name(label.crs)}, its image {self.path} in {_name(self.crs)}; {_WARP}"
        shift = self._shift_px(label)
        if shift > TOLERANCE_PX:
            return f"{label.path}: lies {shift:.3g} px off its image {self.path}; {_WARP}"
        return None

    def _shift_px(self, label: ImageGrid) -> float:
        """The largest distance between a corner of the label and the same corner here, in pixels."""
        height, width = self.shape
        shifts: list[float] = []
        for corner in ((0, 0), (width, 0), (0, height), (width, height)):
            column, row = ~self.transform @ (label.transform @ corner)
            shifts.append(max(abs(column - corner[0]), abs(row - corner[1])))
        return max(shifts)


_WARP = "warp the label onto the image's grid (rio warp --like IMAGE)"


class CatalogRaster(OpenRaster):
    """An open image or label of a catalog.

    Raises:
        CatalogError: on creation, where it is missing or no raster.
    """

    error = CatalogError

    def __init__(self, name: str) -> None:
        require_file(name)
        super().__init__(name)


def require_file(name: str) -> None:
    """Refuse a local file that is not there."""
    if is_path(name) and not Path(name).exists():
        raise CatalogError("does not exist; correct the catalog or its root", source=name)


def grid_of(raster: OpenRaster) -> ImageGrid:
    """The grid of an open raster."""
    return ImageGrid(raster.path, raster.shape, raster.crs, raster.transform)


def attempt(problems: list[str], action: Callable[[], T]) -> T | None:
    """What an action returns; where it fails, its problems are noted and None comes back."""
    try:
        return action()
    except CatalogError as error:
        problems += [f"{error.source}: {text}" if error.source else text for text in error.problems]
        return None


def _name(crs: CRS) -> str:
    return str(crs.to_string())[:60]
