"""Peak memory of `glraster segment` on a small and a large scene: `python benchmarks/memory.py [--times 4]`.

The large scene is the synthetic one of `examples/make_scene.py`, repeated in a VRT mosaic; the model is the
default one. Every run is a process of its own; what counts is its peak resident set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import rasterio

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from make_scene import make_scene

_SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>{band}</SourceBand>'
    '<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
    '<DstRect xOff="{left}" yOff="{top}" xSize="{width}" ySize="{height}"/></SimpleSource>'
)


def repeat(scene: Path, times: int, mosaic: Path) -> Path:
    """Write a VRT of `times` x `times` copies of a scene."""
    with rasterio.open(scene) as source:
        height, width = source.shape
        bands = []
        for band in source.indexes:
            sources = "".join(
                _SOURCE.format(path=scene, band=band, width=width, height=height, left=j * width, top=i * height)
                for i in range(times)
                for j in range(times)
            )
            nodata = f"<NoDataValue>{source.nodata:g}</NoDataValue>" if source.nodata is not None else ""
            bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{nodata}{sources}</VRTRasterBand>')
        geotransform = ", ".join(map(repr, source.transform.to_gdal()))
        size = f'rasterXSize="{times * width}" rasterYSize="{times * height}"'
        mosaic.write_text(
            f"<VRTDataset {size}><SRS>{source.crs.to_string()}</SRS>"
            f"<GeoTransform>{geotransform}</GeoTransform>{''.join(bands)}</VRTDataset>"
        )
    return mosaic


def segment(scene: Path, folder: Path) -> dict[str, float]:
    """Run the command and return what it reports."""
    command = [sys.executable, "-m", "glraster_cli", "segment", str(scene), "-o", str(folder / "mask.tif")]
    done = subprocess.run([*command, "--overwrite", "--json"], stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=4, help="copies per side of the large scene")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, _ = make_scene(folder / "scene.tif")
        large = repeat(small, times, folder / "mosaic.vrt")
        results = [segment(scene, folder) for scene in (small, large)]
    print(f"{'MPx':>8} {'windows':>8} {'peak MiB':>9} {'MPx/s':>7}")
    for result in results:
        megapixels = result["height"] * result["width"] / 1e6
        windows = result["windows_done"] + result["windows_skipped"]
        print(f"{megapixels:8.1f} {windows:8.0f} {result['peak_memory_bytes'] / 2**20:9.0f} {result['mpx_per_s']:7.2f}")
    ratio = results[1]["peak_memory_bytes"] / results[0]["peak_memory_bytes"]
    print(f"peak memory, large / small: {ratio:.2f}")


if __name__ == "__main__":
    main()
