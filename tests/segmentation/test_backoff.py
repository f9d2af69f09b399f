"""Where memory runs out, fewer tiles are taken at a time; the map stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet
from glraster.segmentation.device import DeviceMemoryError
from glraster.segmentation.predict import Predictor, TileForm, fitting_scores

ARCH = Architecture("local", 3, classes=2, backbone="resnet18", width=8, stem=8)
SPEC = ModelSpec(ARCH, (LandClass(0, "a", (0, 0, 0)), LandClass(1, "b", (1, 1, 1))), tile_px=64, thumbnail_px=64)
IMAGE = np.random.default_rng(0).integers(0, 255, (3, 160, 200), np.uint8)


class Small:
    """A network on a device that holds `room` tiles."""

    def __init__(self, room: int, error: Callable[[str], BaseException] = torch.OutOfMemoryError) -> None:
        torch.manual_seed(0)
        self.network = FoldedGLNet(GLNet(ARCH).eval(), "full")
        self.room, self.error = room, error
        self.tried: list[int] = []

    def global_logits(self, thumbnail: Tensor) -> Tensor:
        return self.network.global_logits(thumbnail)

    def tile_logits(self, thumbnail: Tensor, tiles: Iterable[Tensor], *others: Any) -> Iterator[Tensor]:
        def watched() -> Iterator[Tensor]:
            for batch in tiles:
                self.tried.append(batch.shape[0])
                if batch.shape[0] > self.room:
                    raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
                yield batch

        return self.network.tile_logits(thumbnail, watched(), *others)


def predictor(network: Small, batch: int) -> Predictor:
    return Predictor(network, SPEC, "full", TileForm(64, 16), torch.device("cpu"), torch.float32, batch, 256)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_the_batch_is_halved_until_it_fits(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    network = Small(3, error)
    scores, fitting = fitting_scores(predictor(network, 16), IMAGE)
    assert fitting.batch == 2
    assert network.tried[:3] == [12, 8, 4]  # there are twelve tiles in all
    assert [record.message for record in caplog.records][-1] == "cpu is out of memory; going on with 2 tiles at a time"
    np.testing.assert_allclose(scores.cells, predictor(Small(99), 16).cell_scores(IMAGE), atol=1e-4)


def test_a_batch_that_fits_is_kept() -> None:
    network = Small(4)
    _, fitting = fitting_scores(predictor(network, 4), IMAGE)
    assert (fitting.batch, network.tried) == (4, [4, 4, 4])


def test_a_tile_that_does_not_fit_is_told() -> None:
    with pytest.raises(DeviceMemoryError, match="cpu is out of memory; use a smaller --batch or --tile"):
        fitting_scores(predictor(Small(0), 4), IMAGE)


def test_other_errors_are_not_taken_for_it() -> None:
    network = Small(3, lambda _: RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        fitting_scores(predictor(network, 4), IMAGE)
    assert network.tried == [4]
