"""A disk that takes no more is told by an error that names the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMITED = """
import errno, resource, sys
from pathlib import Path
import numpy as np
import rasterio
from glraster.raster.source import gdal_session
from glraster.segmentation.parts import PartFolder

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    PartFolder(folder, 3).write(0, 0, np.zeros((3, 100, 100), np.float32))
except OSError as error:
    print(errno.errorcode[error.errno])
values = np.random.default_rng(0).integers(0, 256, (1, 256, 256), dtype=np.uint8)
form = {"driver": "GTiff", "width": 256, "height": 256, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
try:
    with gdal_session(), rasterio.open(
        folder / "map.tif", "w", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), compress="deflate", **form
    ) as dataset:
        dataset.write(values)
except rasterio.errors.RasterioError:
    print("told")
"""


def test_the_reason_is_known(tmp_path: Path) -> None:
    call = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["EFBIG", "told"]
    assert not (tmp_path / "window_0_0.npy").exists()
