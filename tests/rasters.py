"""Rasters made by code: every pixel tells its row, its column and its band, so that a swap cannot hide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

UTM = "EPSG:32633"
HALF_METRE = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
PATCH_PX = 20

Image = npt.NDArray[Any]


def landscape(height: int, width: int, bands: int = 3, dtype: str = "uint8", seed: int = 7) -> Image:
    """Patches of random brightness with a ramp along rows and columns on them, 0 to 240: (bands, height, width).

    int16 pixels are centred on zero, uint16 ones use twelve bits, floats lie in 0 to 1.
    """
    patches = np.random.default_rng(seed).integers(0, 180, (bands, -(-height // PATCH_PX), -(-width // PATCH_PX)))
    brightness = patches.repeat(PATCH_PX, axis=1).repeat(PATCH_PX, axis=2)[:, :height, :width]
    rows, columns = np.ogrid[:height, :width]
    offsets = np.arange(bands)[:, None, None]
    values = brightness + (2 * rows + 5 * columns + 13 * offsets) % 61
    return {
        "uint8": lambda: values.astype("uint8"),
        "uint16": lambda: (values * 16).astype("uint16"),
        "int16": lambda: (values * 8 - 1000).astype("int16"),
        "float32": lambda: (values / 240).astype("float32"),
        "complex64": lambda: (values * (1 + 1j)).astype("complex64"),
    }[dtype]()


def write_raster(
    path: Path,
    pixels: Image,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    sidecar: bool = False,
    overviews: Sequence[int] = (),
    **profile: Any,
) -> Path:
    """Write (bands, height, width) pixels; half-metre UTM GeoTIFF unless the profile says otherwise.

    `mask` becomes an internal mask, or a .msk file with `sidecar`.
    """
    count, height, width = pixels.shape
    grid = {"crs": UTM, "transform": HALF_METRE}
    form = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=not sidecar),
        rasterio.open(path, "w", **(form | grid | profile)) as dataset,
    ):
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews(overviews)
    return path


def write_vrt(path: Path, sources: Sequence[tuple[str, int, str]], height: int, width: int, relative: bool) -> Path:
    """Write a VRT whose bands are (file, band, GDAL type name) of `sources`, on the half-metre UTM grid."""
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{int(relative)}">{file}</SourceFilename><SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i, (file, band, kind) in enumerate(sources, start=1)
    )
    geotransform = ", ".join(map(str, HALF_METRE.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{geotransform}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def hole(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Valid pixels of a scene with a corner cut off and a slanted hole: symmetric along no axis."""
    rows, columns = np.mgrid[:height, :width]
    corner = rows + 2 * columns < height // 2
    slit = (np.abs(rows - 2 * columns + width // 3) < 9) & (rows > height // 3)
    return ~(corner | slit)


def assert_is_map(path: Path, scene: Path, valid: npt.NDArray[np.bool_], ids: Sequence[int]) -> None:
    """Hold a mask to what the README promises: the scene's grid, class ids where valid, nodata elsewhere, a COG."""
    from rio_cogeo.cogeo import cog_validate

    assert valid.any() or valid.size
    with rasterio.open(scene) as source, rasterio.open(path) as mask:
        assert (mask.height, mask.width, mask.count) == (*valid.shape, 1)
        assert mask.crs == source.crs
        assert mask.transform.almost_equals(source.transform, precision=1e-9)
        assert (mask.dtypes, mask.nodata) == (("uint8",), 255)
        assert set(ids) <= set(mask.colormap(1))
        assert all(mask.colormap(1)[i] != (0, 0, 0, 255) for i in ids)
        values = mask.read(1)
    assert np.array_equal(values == 255, ~valid)
    assert set(np.unique(values)) <= {*ids, 255}
    sound, errors, _ = cog_validate(path, quiet=True)
    assert sound, errors


def read(path: Path) -> Image:
    """All bands of a raster."""
    with rasterio.open(path) as dataset:
        pixels: Image = dataset.read()
    return pixels
