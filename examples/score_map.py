"""Compare a mask with the truth on the same grid: `python examples/score_map.py demo/mask.tif demo/scene_truth.tif`.

Class ids must be 0, 1, 2, ... as those of the default model are.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.windows import Window

from glraster.metrics import class_iou, confusion, mean_iou

_ROWS = 512


@click.command()
@click.argument("mask", type=click.Path(path_type=Path, exists=True))
@click.argument("truth", type=click.Path(path_type=Path, exists=True))
def main(mask: Path, truth: Path) -> None:
    """Print the intersection over union of every class of MASK against TRUTH."""
    with rasterio.open(mask) as predicted, rasterio.open(truth) as true:
        names = [c["name"] for c in json.loads(predicted.tags()["GLRASTER_CLASSES"])]
        counts = np.zeros((len(names),) * 2, np.int64)
        if predicted.shape != true.shape:
            raise click.ClickException(f"{mask} is {predicted.shape}, {truth} is {true.shape}")
        for top in range(0, true.height, _ROWS):
            window = Window(0, top, true.width, min(_ROWS, true.height - top))
            counts += confusion(true.read(1, window=window), predicted.read(1, window=window), len(names))
    told = ", ".join(f"{name} {iou:.2f}" for name, iou in zip(names, class_iou(counts), strict=True))
    print(f"{mask} against {truth}: mIoU {mean_iou(counts):.3f} ({told})")


if __name__ == "__main__":
    main()
