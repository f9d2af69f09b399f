"""Read labels that are polygons with a class column, burned onto the grid of their image."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds

from glraster.catalog.records import LabelValue
from glraster.errors import LabelError
from glraster.labels.grid import ImageGrid, require_file
from glraster.labels.spec import LabelSpec, LabelWording
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
    of their first appearance. Where polygons overlap, the later feature wins. A pixel belongs to the polygon that
    holds its centre. Memory: the polygons that touch one window.

    Raises:
        LabelError: on creation, if the file has no such layer or column, no polygons, or lacks the CRS its image has.
    """

    def __init__(self, name: str, spec: LabelSpec, grid: ImageGrid) -> None:
        self.name, self.path = name, redact(name)
        self._grid = grid
        self._spec = spec
        self._column = spec.column or ""
        self._values: list[LabelValue | None] = []
        self._layer, self._crs = self._check_layer()

    def _check_layer(self) -> tuple[str, CRS | None]:
        try:
            name = self._spec.layer or only_layer(self.name, self._spec.wording)
            with remote_vectors(self.name):
                layer = pyogrio.read_info(self.name, layer=name)
            crs = None if layer["crs"] is None else CRS.from_user_input(layer["crs"])
        except (DataSourceError, DataLayerError, RasterioError) as error:
            raise LabelError(f"cannot be read as vectors: {reason(error, self.name)}", where=self.path) from error
        columns = [str(column) for column in layer["fields"]]
        if self._column not in columns:
            similar = get_close_matches(self._column, columns, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(columns) or 'none'}"
            raise LabelError(f"has no column {self._column}", where=self.path, advice=hint)
        if not {"Polygon", "Unknown"} & set(str(layer["geometry_type"]).replace("Multi", "").split()):
            raise LabelError(f"holds {layer['geometry_type']} geometries, not polygons", where=self.path)
        if (crs is None) != (self._grid.crs is None):
            image = self._spec.wording.image
            lacking, other = ("it", image) if crs is None else (image, "it")
            raise LabelError(
                f"{lacking} has no CRS and {other} has one, so they cannot be laid on each other: {self._grid.path}",
                where=self.path,
                advice="assign the one that is missing",
            )
        return name, crs

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """The codes of a window of the image's grid, (height, width), and which pixels are valid: all."""
        shape = (window.height, window.width)
        transform = self._grid.transform @ Affine.translation(window.left, window.top)
        polygons = self._polygons_around(transform, shape)
        codes = np.full(shape, _BACKGROUND, np.int32)
        if len(polygons):
            values = [self._code(value) for value in polygons[self._column].tolist()]
            rasterize(zip(polygons.geometry, values, strict=True), out=codes, transform=transform)
        return codes, np.ones(shape, bool)

    def _polygons_around(self, transform: Affine, shape: tuple[int, int]) -> geopandas.GeoDataFrame:
        """The polygons around a window in the image's CRS, in the order of the features."""
        bounds = raster_bounds(transform, *shape)
        try:
            if self._crs is not None and self._crs != self._grid.crs:
                bounds = transform_bounds(self._grid.crs, self._crs, *bounds)
            with remote_vectors(self.name):
                polygons = geopandas.read_file(
                    self.name,
                    layer=self._layer,
                    columns=[self._column],
                    bbox=tuple(bounds),
                    engine="pyogrio",
                    force_2d=True,
                    fid_as_index=True,
                )
            polygons = polygons.sort_index(kind="stable")
            polygons = polygons[~(polygons.geometry.isna() | polygons.geometry.is_empty)]
            if self._grid.crs is not None and self._crs != self._grid.crs:
                polygons = polygons.to_crs(self._grid.crs.to_wkt())
                if not np.isfinite(polygons.total_bounds).all() and len(polygons):
                    raise LabelError(f"has polygons that leave the CRS of {self._grid.path}", where=self.path)
        except (DataSourceError, DataLayerError, RasterioError, shapely.errors.GEOSException) as error:
            raise LabelError(
                f"cannot be read, it may be damaged: {reason(error, self.name)}", where=self.path
            ) from error
        return polygons

    def _code(self, value: object) -> int:
        label_value = value if isinstance(value, int | str) else None
        if isinstance(value, float) and value.is_integer():
            label_value = int(value)
        if label_value not in self._values:
            self._values.append(label_value)
        return self._values.index(label_value) + 1

    def meaning(self, code: int) -> int | None:
        """The class index of a code, `IGNORE`, or None if its value is no class."""
        if code == _BACKGROUND:
            return self._spec.background
        value = self._values[code - 1]
        return None if value is None else self._spec.meanings.get(value)

    def describe(self, code: int) -> str:
        """The column's value of a code, for people."""
        value = self._values[code - 1]
        return "null" if value is None else repr(value)

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing stays open between reads."""


def only_layer(name: str, wording: LabelWording) -> str:
    """The one layer with geometries of a vector file.

    Raises:
        LabelError: if there is none, or several, or the file does not exist.
        DataSourceError: if it cannot be read as vectors.
    """
    require_file(name, wording.missing)
    with remote_vectors(name):
        layers = [str(layer) for layer, kind in pyogrio.list_layers(name) if kind is not None]
    if not layers:
        raise LabelError("has no geometries", where=redact(name))
    if len(layers) > 1:
        raise LabelError(f"has the layers {', '.join(layers)}", where=redact(name), advice=wording.layer)
    return layers[0]
