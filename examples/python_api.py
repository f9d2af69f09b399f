"""A map, its polygons and its scores from Python, cell by cell.

`python examples/python_api.py [SCENE [TRUTH]]` runs it. If none is named it takes those that `make demo` writes.
"""

# %% A map of a scene, in memory
import sys
from pathlib import Path

import rasterio
from rasterio.windows import Window

import glraster

scene = sys.argv[1] if len(sys.argv) > 1 else "demo/scene.tif"
truth = sys.argv[2] if len(sys.argv) > 2 else str(Path(scene).with_name("scene_truth.tif"))

land_cover = glraster.segment(scene)
land_cover  # noqa: B018  a notebook draws it

# %% It is an array with its georeference
print(land_cover.array.shape, land_cover.crs, [c.name for c in land_cover.classes])
print(f"mean confidence {land_cover.confidence[land_cover.array != 255].mean():.0f} %")

# %% Polygons as a GeoDataFrame
polygons = land_cover.to_geodataframe(simplify_m=1.0, min_area_m2=20.0)
print(polygons.groupby("class_name").area_m2.sum().round())

# %% How good is it?
scores = glraster.evaluate(land_cover, truth)
print(f"mIoU {scores.miou:.3f}")

# %% The network itself, on an array (bands, H, W)
with rasterio.open(scene) as dataset:
    pixels = dataset.read(window=Window(0, 0, 512, 512))
model = glraster.load_model("default")
probabilities = model.predict(pixels)
print(probabilities.shape, [c.name for c in model.classes])

# %% Errors say what to do
try:
    glraster.segment("no_such_scene.tif")
except glraster.GlrasterError as error:
    print(error)
