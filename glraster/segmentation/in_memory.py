"""A loaded model that maps arrays, without files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.config import Branch, LandClass, ModelSpec
from glraster.errors import UsageError
from glraster.model.checkpoint import load, model_path
from glraster.model.fold import FoldedGLNet
from glraster.raster.grid import FloatArray, Window, WindowGrid, context_axis, usual_overlap, working_grid
from glraster.segmentation.assemble import Assembly, softmax
from glraster.segmentation.device import choose_batch, choose_device, choose_precision
from glraster.segmentation.predict import Predictor, TileForm


@dataclass(frozen=True)
class Model:
    """A model in memory: `path` its file, `spec` what it says of itself."""

    path: Path
    spec: ModelSpec
    _predictor: Predictor = field(repr=False)

    @classmethod
    def load(cls, name: str | os.PathLike[str] | None, device: str = "auto") -> Model:
        """Load a model file, glraster's own if `name` is None.

        Raises:
            ModelError: if the file is damaged or no model. DeviceError: if the device is absent.
        """
        path = model_path(name)
        torch_device = choose_device(device)
        network, spec = load(path)
        branch: Branch = "global" if spec.architecture.mode == "global" else "full"
        dtype = choose_precision("auto", torch_device, spec.bfloat16_agreement)
        predictor = Predictor(
            model=FoldedGLNet(network.to(torch_device).eval(), branch, dtype),
            spec=spec,
            branch=branch,
            tiles=TileForm(spec.tile_px, usual_overlap(spec.tile_px)),
            device=torch_device,
            dtype=dtype,
            batch=choose_batch(None, torch_device, spec.tile_px),
            context_px=spec.context_px,
        )
        return cls(path, spec, predictor)

    @property
    def classes(self) -> tuple[LandClass, ...]:
        """Classes in the order of the scores."""
        return self.spec.classes

    def predict(self, array: npt.NDArray[Any]) -> FloatArray:
        """Return the class probabilities of every pixel.

        Args:
            array: (bands, H, W) at the model's ground sample distance, values in the range that it was trained on
                (`spec.dtype`). Windows and tiles are those of `segment`.

        Returns:
            (classes, H, W), float32, in the order of `classes`; they sum to 1.

        Raises:
            UsageError: if the array has another shape or number of bands.

        Memory grows with the array: some 5 bytes per class and pixel.
        """
        bands = self.spec.architecture.bands
        if array.ndim != 3 or array.shape[0] != bands or not array.size:
            raise UsageError(f"the array has the shape {array.shape}; the model needs ({bands}, H, W)")
        height, width = array.shape[1:]
        windows = WindowGrid(*(context_axis(side, self.spec.context_px, self.spec.tile_px) for side in (height, width)))
        extent = Window(0, 0, height, width)
        scores = {
            (row, column): self._predictor.cell_scores(_padded(array, windows.window(row, column)))
            for row, column in windows.touching(extent)
        }
        grid = working_grid(height, width, (1.0, 1.0))
        return softmax(Assembly(grid, windows, _Held(len(self.classes), scores)).scores(extent)[0])


@dataclass(frozen=True)
class _Held:
    """Scores of windows in memory, as an `Assembly` reads parts."""

    classes: int
    scores: dict[tuple[int, int], FloatArray]

    def read_rows(self, row: int, column: int, start: int, stop: int) -> FloatArray:
        return self.scores[row, column][:, start:stop].transpose(1, 0, 2)

    def forget_above(self, row: int) -> None:
        """Nothing is forgotten: the array is mapped at once."""


def _padded(array: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """A window of an array; beyond its edge each band has its mean, as `segment` fills pixels without data."""
    part = array[:, window.top : window.bottom, window.left : window.right]
    image = np.empty((array.shape[0], window.height, window.width), array.dtype)
    image[:] = part.mean(axis=(1, 2), dtype=np.float64).astype(array.dtype)[:, None, None]
    image[:, : part.shape[1], : part.shape[2]] = part
    return image
