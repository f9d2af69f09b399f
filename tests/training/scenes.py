"""Labelled scenes whose brightness is their class, so that a label beside its pixel shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from rasters import write_raster

SMALL = (
    *("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=2", "steps=6", "steps_per_epoch=2"),
    *("warm_up=2", "learning_rate=0.003"),
)
"""Settings of a training of three epochs that takes a second."""

NAMES = ("water", "meadow", "roof")
STEP = 80
"""Brightness between two classes; class 0 is at half a step."""


def write_catalog(folder: Path, scenes: int = 3, side: int = 320, **changes: object) -> Path:
    """Write scenes of patches, their labels and a catalog; the last scene is for validation."""
    pairs = []
    for number in range(scenes):
        classes = np.random.default_rng(number).integers(0, len(NAMES), (side // 40, side // 40))
        label = classes.repeat(40, axis=0).repeat(40, axis=1).astype(np.uint8)
        noise = np.random.default_rng(number).integers(-8, 9, (3, side, side))
        write_raster(folder / f"image{number}.tif", (label * STEP + STEP // 2 + noise).astype(np.uint8))
        write_raster(folder / f"label{number}.tif", label[None])
        pairs.append({"image": f"image{number}.tif", "label": f"label{number}.tif"})
    document = {
        "name": "patches",
        "classes": [{"id": i, "name": name, "color": [90 * i, 40, 200]} for i, name in enumerate(NAMES)],
        "bands": 3,
        "context_px": 128,
        "labels": {"encoding": "index"},
        "splits": {"train": pairs[:-1], "val": pairs[-1:]},
    }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(document | changes))
    return path
