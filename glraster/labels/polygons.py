"""Read labels that are polygons with a class column, burned onto the grid of their image."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds, transform_geom

from glraster.catalog import IGNORE, Catalog
from glraster.catalog.records import LabelValue
from glraster.errors import CatalogError
from glraster.labels.grid import ImageGrid, require_file
from glraster.names import redact
from glraster.raster.georef import raster_bounds
from glraster.raster.grid import Window
from glraster.raster.remote import remote_vectors
from glraster.raster.source import reason

BoolArray = npt.NDArray[np.bool_]

_BACKGROUND = 0


class PolygonLabel:
    """A vector label: anything OGR opens, on the grid of one image.

    Its pixel values are codes: 0 outside the polygons, then one for every value of the class column in the order
    of their first appearance. Of polygons that overlap, the later feature wins. A pixel belongs to a polygon that
    holds its centre. Memory: the polygons that touch one window.
    """

    def __init__(self, path: str, catalog: Catalog, grid: ImageGrid) -> None:
        self.name, self.path = path, redact(path)
        self._grid = grid
        self._column = catalog.labels.column or ""
        self._layer = catalog.labels.layer or _only_layer(path)
        self._meanings = catalog.label_meanings()
        background = catalog.labels.background
        ids = {c.id: i for i, c in enumerate(catalog.classes)}
        self._background = IGNORE if background is None else ids.get(background, IGNORE)
        self._values: list[LabelValue | None] = []
        self._crs = self._check_layer()

    def _check_layer(self) -> CRS | None:
        try:
            with remote_vectors(self.name):
                about = pyogrio.read_info(self.name, layer=self._layer)
            crs = None if about["crs"] is None else CRS.from_user_input(about["crs"])
        except (DataSourceError, DataLayerError, RasterioError) as error:
            raise CatalogError(f"cannot be read as vectors: {reason(error, self.name)}", source=self.path) from error
        columns = [str(column) for column in about["fields"]]
        if self._column not in columns:
            near = get_close_matches(self._column, columns, n=1)
            told = f"did you mean {near[0]}?" if near else f"it has {', '.join(columns) or 'none'}"
            raise CatalogError(f"has no column {self._column}; {told}", source=self.path)
        if not {"Polygon", "Unknown"} & set(str(about["geometry_type"]).replace("Multi", "").split()):
            raise CatalogError(f"holds {about['geometry_type']} geometries, not polygons", source=self.path)
        if (crs is None) != (self._grid.crs is None):
            lacking, other = ("it", "its image") if crs is None else ("its image", "it")
            raise CatalogError(
                f"{lacking} has no CRS and {other} has one, so they cannot be laid on each other: {self._grid.path}; "
                "assign the one that is missing",
                source=self.path,
            )
        return crs

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """The codes of a window of the image's grid, (height, width), and which pixels are valid: all."""
        shape = (window.height, window.width)
        transform = self._grid.transform @ Affine.translation(window.left, window.top)
        burned = self._burned(transform, shape)
        codes = np.full(shape, _BACKGROUND, np.int32)
        if burned:
            rasterize(burned, out=codes, transform=transform)
        return codes, np.ones(shape, bool)

    def _burned(self, transform: Affine, shape: tuple[int, int]) -> list[tuple[dict[str, Any], int]]:
        """The polygons around a window in the image's CRS, each with its code, in the order of the features."""
        bounds = raster_bounds(transform, *shape)
        try:
            if self._crs is not None and self._crs != self._grid.crs:
                bounds = transform_bounds(self._grid.crs, self._crs, *bounds)
            with remote_vectors(self.name):
                _, fids, encoded, columns = pyogrio.raw.read(
                    self.name, layer=self._layer, columns=[self._column], bbox=bounds, force_2d=True, return_fids=True
                )
            order = np.argsort(fids, kind="stable")
            shapes = shapely.from_wkb(encoded[order])
            kept = [i for i, shape_ in enumerate(shapes) if shape_ is not None and not shape_.is_empty]
            geometries = [shapely.geometry.mapping(shapes[i]) for i in kept]
            if geometries and self._crs is not None and self._crs != self._grid.crs:
                geometries = transform_geom(self._crs, self._grid.crs, geometries)
        except (DataSourceError, DataLayerError, RasterioError, shapely.errors.GEOSException) as error:
            told = reason(error, self.name)
            raise CatalogError(f"cannot be read, it may be damaged: {told}", source=self.path) from error
        values = columns[0][order].tolist()
        return [(geometry, self._code(values[i])) for geometry, i in zip(geometries, kept, strict=True)]

    def _code(self, value: object) -> int:
        known = value if isinstance(value, int | str) else None
        if isinstance(value, float) and value.is_integer():
            known = int(value)
        if known not in self._values:
            self._values.append(known)
        return self._values.index(known) + 1

    def meaning(self, code: int) -> int | None:
        """The class index of a code, `IGNORE`, or None where its value is no class."""
        if code == _BACKGROUND:
            return self._background
        value = self._values[code - 1]
        return None if value is None else self._meanings.get(value)

    def describe(self, code: int) -> str:
        """The column's value of a code, for people."""
        value = self._values[code - 1]
        return "null" if value is None else repr(value)

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing stays open between reads."""


def _only_layer(path: str) -> str:
    """The one layer with geometries of a vector file."""
    require_file(path)
    try:
        with remote_vectors(path):
            layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    except DataSourceError as error:
        raise CatalogError(f"cannot be read as vectors: {reason(error, path)}", source=redact(path)) from error
    if len(layers) != 1:
        told = f"has the layers {', '.join(layers)}; choose one by labels.layer" if layers else "has no geometries"
        raise CatalogError(told, source=redact(path))
    return layers[0]
