"""Write a synthetic aerial scene and its truth: `python examples/make_scene.py demo/scene.tif [--seed N]`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window
from scenery.canvas import CLASS_NAMES, GSD_M, Canvas, sun
from scenery.country import paint_country
from scenery.plan import make_plan
from scenery.render import Renderer, make_renderer
from scenery.roofs import raise_buildings
from scenery.shapes import Ring
from scenery.sketch import Sketch, park_cars, plant_trees
from scenery.town import line_streets, paint_ground
from scenery.ways import paint_roads, paint_verges, paint_water

TRUTH_NODATA = 255
COLOURS = {0: (200, 60, 50), 1: (205, 178, 132), 2: (90, 90, 96), 3: (86, 140, 62), 4: (52, 104, 176)}
_BLOCK = 512
_STRIP = 128
_SMALLEST = 256
_ORIGIN = (412_300.0, 5_654_800.0)


def make_scene(path: str | Path, *, seed: int = 7, width: int = 6144, height: int = 5120) -> tuple[Path, Path]:
    """Write a scene and, beside it, its truth; the same seed and size give the same pixels.

    Args:
        path: Where the scene goes, a GeoTIFF; the truth gets `_truth` added to its name.
        seed: Decides everything in the scene.
        width: Columns, at least 256; a pixel is 0.5 m.
        height: Rows, at least 256.

    Returns:
        The paths of the scene and of the truth.

    Raises:
        ValueError: The scene is smaller than 256 x 256.

    Memory: about 20 bytes per pixel.
    """
    if min(width, height) < _SMALLEST:
        raise ValueError(f"the scene is {width} x {height}: make it {_SMALLEST} x {_SMALLEST} or larger")
    scene = Path(path)
    truth = truth_path(scene)
    canvas, renderer, missing = _paint(seed, width, height)
    _write_truth(truth, canvas, missing)
    _write_scene(scene, renderer, missing)
    return scene, truth


def truth_path(scene: Path) -> Path:
    """Return where the truth of a scene lies."""
    return scene.with_name(f"{scene.stem}_truth{scene.suffix}")


def _paint(seed: int, width: int, height: int) -> tuple[Canvas, Renderer, NDArray[np.bool_]]:
    rng = np.random.Generator(np.random.PCG64(seed))
    light = sun(rng.uniform(140, 222), rng.uniform(44, 54))
    plan = make_plan(rng, width, height)
    canvas = Canvas(width, height)
    sketch = Sketch(canvas, plan.frame, rng, light, plan.scale)
    paint_country(sketch, plan)
    paint_ground(sketch, plan)
    paint_verges(sketch, plan)
    paint_water(sketch, plan)
    paint_roads(sketch, plan)
    line_streets(sketch, plan)
    raise_buildings(sketch)
    park_cars(sketch)
    plant_trees(sketch)
    seams, edge = _flight(rng, width, height)
    missing = np.zeros((height, width), np.uint8)
    rasterize([({"type": "Polygon", "coordinates": [edge.tolist()]}, 1)], out=missing)
    return canvas, make_renderer(canvas, light, seed, seams), missing.view(bool)


def _flight(rng: np.random.Generator, width: int, height: int) -> tuple[tuple[tuple[float, float, float], ...], Ring]:
    """Return the seams between flight strips and the corner that none of them covers, as a closed ring."""
    lean = rng.uniform(-0.02, 0.02)
    near, far = width * rng.uniform(0.76, 0.82), width * rng.uniform(0.9, 0.94)
    steps = height * rng.uniform(0.03, 0.06), height * rng.uniform(0.1, 0.16)
    shape = np.array([[near, 0], [near, steps[0]], [far, steps[0]], [far, steps[1]], [width, steps[1]]])
    parts = [a + (b - a) * np.linspace(0, 1, 40)[:, None] for a, b in pairwise(shape)]
    edge = np.concatenate(parts)
    edge += rng.normal(0, 1.2, edge.shape) + np.stack([lean * edge[:, 1], lean * edge[:, 0] * 0.5], axis=1)
    edge = np.vstack([[near, -9], edge, [width + 9, steps[1]], [width + 9, -9], [near, -9]])
    columns = [width * 0.27, width * 0.53, near, far]
    if rng.random() < 0.5:
        edge[:, 0], columns, lean = width - edge[:, 0], [width - column for column in columns], -lean
    if rng.random() < 0.5:
        edge[:, 1] = height - edge[:, 1]
    return tuple((column, lean, rng.normal(0, 0.02)) for column in columns), edge


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes `path` when all went well, and goes away when not."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _profile(width: int, height: int, count: int, nodata: int) -> dict[str, object]:
    return {
        "driver": "GTiff", "dtype": "uint8", "count": count, "width": width, "height": height, "nodata": nodata,
        "crs": "EPSG:32633", "transform": from_origin(*_ORIGIN, GSD_M, GSD_M), "interleave": "pixel",
        "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate", "predictor": 2,
        "num_threads": 2,
    }  # fmt: skip


def _write_truth(path: Path, canvas: Canvas, missing: NDArray[np.bool_]) -> None:
    truth = canvas.classes()[canvas.ids]
    truth[missing] = TRUTH_NODATA
    profile = _profile(canvas.width, canvas.height, 1, TRUTH_NODATA) | {"predictor": 1}
    with _beside(path) as part, rasterio.open(part, "w", **profile) as out:
        out.write(truth, 1)
        out.write_colormap(1, COLOURS)
        out.update_tags(1, **{f"CLASS_{number}": name for number, name in enumerate(CLASS_NAMES)})


def _write_scene(path: Path, renderer: Renderer, missing: NDArray[np.bool_]) -> None:
    """Render and write a few rows at a time; two threads render, in order."""
    height, width = missing.shape
    starts = range(0, height, _STRIP)
    stops = [min(start + _STRIP, height) for start in starts]
    profile = _profile(width, height, 3, 0)
    with _beside(path) as part, rasterio.open(part, "w", **profile) as out, ThreadPoolExecutor(2) as pool:
        out.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        for start, stop, rgb in zip(starts, stops, pool.map(renderer.rows, starts, stops), strict=True):
            rgb[:, missing[start:stop]] = 0
            out.write(rgb, window=Window(0, start, width, stop - start))


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", default=7, show_default=True, help="Decides everything in the scene.")
@click.option("--width", default=6144, show_default=True, help="Columns of 0.5 m.")
@click.option("--height", default=5120, show_default=True, help="Rows of 0.5 m.")
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def main(path: Path, seed: int, width: int, height: int, force: bool) -> None:
    """Write a synthetic aerial scene to PATH and its truth beside it."""
    taken = [file for file in (path, truth_path(path)) if file.exists()]
    if taken and not force:
        raise click.ClickException(f"{taken[0]} is there already: name another file or add --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    for written in make_scene(path, seed=seed, width=width, height=height):
        click.echo(f"{written}  {written.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
