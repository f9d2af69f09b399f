"""A model as ONNX with one input, an image tile, and the metadata that the QGIS plugin Deepness reads."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.config import ModelSpec
from glraster.errors import ModelError, UsageError, require_extra
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.raster.grid import STRIDE
from glraster.raster.resize import resize_weights

OPSET = 18
TOLERANCE = 1e-3
"""Largest difference allowed between the probabilities of the ONNX form and torch's."""

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
_BYTE = 255.0


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file's content, the side of its tile, and the largest difference of its probabilities from torch's."""

    content: bytes
    tile_px: int
    deviation: float


class SingleTile(nn.Module):
    """A GLNet as a function of one tile: the global branch sees no more than this tile.

    Input (1, bands, side, side), normalised as the model's spec says; output (1, classes, side, side) probabilities.
    The thumbnail has the scale that the global branch was trained on.
    """

    shrink: Tensor

    def __init__(self, network: GLNet, spec: ModelSpec, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self._whole = Tiling(side, side, side, side, (0,), (0,))
        thumbnail_px = max(1, round(side * spec.thumbnail_px / spec.context_px))
        # anti-aliased resizing differs between ONNX runtimes, a matrix product does not
        self.register_buffer("shrink", torch.from_numpy(resize_weights(side, thumbnail_px)))

    def forward(self, tile: Tensor) -> Tensor:
        thumbnail = self.shrink @ tile @ self.shrink.T
        logits = F.interpolate(self._logits(thumbnail, tile), (self.side, self.side), mode="bilinear")
        return logits.softmax(dim=1)

    def _logits(self, thumbnail: Tensor, tile: Tensor) -> Tensor:
        network = self.network
        if network.guide is None:
            ((_, maps),) = network.local_maps([tile], None, self._whole)
            return maps.logits
        guide = network.guide(thumbnail)
        if network.local is None:
            return F.interpolate(guide.logits, (self.side // STRIDE, self.side // STRIDE), mode="bilinear")
        tiling = self._whole
        if network.refined is None:
            ((_, maps),) = network.local_maps([tile], guide, tiling)
            votes, context = network.tile_votes(maps.ps3), guide
        else:
            gathered = network.gather([tile], guide, tiling)
            (votes,), context = gathered.votes, network.refined(thumbnail, gathered.merged)
        return votes + network.window_votes(context.ps3, tiling, 0, votes.shape)


def export_onnx(network: GLNet, spec: ModelSpec, side: int | None = None) -> OnnxModel:
    """Turn a model into its single-input ONNX form and compare it with torch on a test image.

    Args:
        network: in eval mode, on the CPU.
        spec: its metadata.
        side: of the tile in pixels, a multiple of 4; the model's own if None.

    Returns:
        The file's content. Memory: the weights several times over.

    Raises:
        UsageError: the packages of the extra `onnx` are missing, or the side is impossible.
        ModelError: the ONNX form gives other probabilities than torch.
    """
    require_extra("onnx", _EXTRA, "ONNX export")
    side = spec.tile_px if side is None else side
    if side < 32 or side % STRIDE:
        raise UsageError(f"--tile {side} must be a multiple of {STRIDE}, and 32 or more")
    form = SingleTile(network, spec, side).eval()
    example = _example(spec, side)
    model, expected = _exported(form, example)
    for key, value in deepness_metadata(spec, side).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    stream = BytesIO(model.SerializeToString())
    deviation = float(np.abs(_run(stream.getvalue(), example.numpy()) - expected).max())
    if not deviation <= TOLERANCE:
        raise ModelError(f"the ONNX form differs from torch by {deviation:.2g}, more than {TOLERANCE:g}; report this")
    return OnnxModel(stream.getvalue(), side, deviation)


def _exported(form: SingleTile, example: Tensor) -> tuple[Any, npt.NDArray[np.float32]]:
    """The form as an ONNX `ModelProto`, and torch's own output for the example."""
    with torch.no_grad(), _silence():
        program = torch.onnx.export(
            form,
            (example,),
            input_names=["input"],
            output_names=["output"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        expected: npt.NDArray[np.float32] = form(example).numpy()
    assert program is not None
    return program.model_proto, expected


def deepness_metadata(spec: ModelSpec, side: int) -> dict[str, Any]:
    """The metadata that Deepness reads from an ONNX file; each value is stored as JSON.

    Deepness divides bytes by 255 before it standardizes them, so mean and std are given for values in 0 to 1. The
    threshold of 0 and the small segment of 0 leave the arg-max as it is.
    """
    bands = spec.architecture.bands
    mean, std = (values * bands if len(values) == 1 else values for values in (spec.mean, spec.std))
    return {
        "model_type": "Segmentor",
        "class_names": {str(i): c.name for i, c in enumerate(spec.classes)},
        **({"resolution": spec.gsd_m * 100} if spec.gsd_m else {}),
        "tile_size": side,
        "tiles_overlap": 25,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
        "standardization_mean": [m * spec.scale / _BYTE for m in mean],
        "standardization_std": [s * spec.scale / _BYTE for s in std],
    }


def _example(spec: ModelSpec, side: int) -> Tensor:
    """A reproducible image of blocks and noise, as network input."""
    random = np.random.default_rng(0)
    blocks = random.random((1, spec.architecture.bands, -(-side // 32), -(-side // 32))).repeat(32, 2).repeat(32, 3)
    image = 0.8 * blocks[..., :side, :side] + 0.2 * random.random((1, spec.architecture.bands, side, side))
    mean, std = (np.reshape(values, (1, -1, 1, 1)) for values in (spec.mean, spec.std))
    return torch.from_numpy(((image - mean) / std).astype(np.float32))


def _run(content: bytes, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: image})[0]
    return result


@contextmanager
def _silence() -> Iterator[None]:
    """Hide the exporter's log and warnings, which address its developers; errors stay exceptions."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
