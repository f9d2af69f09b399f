"""A map in memory: what `segment` returns if it is given no file to write."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from glraster.api.notebook import picture
from glraster.api.wording import speaks_python
from glraster.config import LandClass
from glraster.files import claim, staged
from glraster.raster.class_raster import ClassRaster, ValueRaster
from glraster.raster.source import gdal_session

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True, eq=False)
class LandCover:
    """A land-cover map.

    Attributes:
        array: class ids (H, W), uint8; 255 if a pixel has no class.
        transform: pixel (column, row) to map coordinates; the identity without georeference.
        crs: of the map coordinates; None without.
        classes: what the ids mean, with colours.
        confidence: probability of each pixel's class (H, W), uint8, per cent, 255 as in `array`; None if unknown.
        path: the mask's file. `confidence_path`: the confidence's.

    In a notebook it draws itself. A map that `segment` returns keeps its files in a temporary folder while it lives.
    """

    array: npt.NDArray[np.uint8]
    transform: Affine
    crs: CRS | None
    classes: tuple[LandClass, ...]
    confidence: npt.NDArray[np.uint8] | None
    path: Path
    confidence_path: Path | None = None

    @classmethod
    @speaks_python
    def read(cls, mask: str | Path, confidence: str | Path | None = None) -> LandCover:
        """Read a mask that `segment` wrote, or any raster of class ids, whole.

        Raises:
            SceneError: if it is no class mask, or a file cannot be read.
        """
        with gdal_session(), ClassRaster(str(mask)) as raster:
            array, classes = raster.read(raster.extent), raster.classes
            transform, crs = raster.transform, raster.crs
        certainty = None
        if confidence is not None:
            with gdal_session(), ValueRaster(str(confidence)) as values:
                certainty = values.read_bands(values.index).astype(np.uint8)
        where = None if confidence is None else Path(confidence)
        return cls(array, transform, crs, classes, certainty, Path(mask), where)

    def owning(self, folder: Path) -> LandCover:
        """Remove the folder with this map's files when nobody uses the map any more."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return self

    @speaks_python
    def save(self, output: str | Path, *, overwrite: bool = False) -> Path:
        """Write the mask as the Cloud-Optimized GeoTIFF that `segment` writes.

        Raises:
            OutputError: if the file exists and may not be replaced, or cannot be written.
        """
        target = Path(output)
        claim(target, inputs=[self.path], overwrite=overwrite)
        with staged(target, raster=True) as unfinished:
            shutil.copyfile(self.path, unfinished)
        return target

    def to_geodataframe(self, **options: Any) -> gpd.GeoDataFrame:
        """Return the polygons of the map; see `polygonize`."""
        from glraster.api.verbs import polygonize

        return polygonize(self, **options)

    def _repr_html_(self) -> str:
        return picture(self.path)
