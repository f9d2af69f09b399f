"""Take fewer tiles at a time where the device turns out too small."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from glraster.segmentation.device import DeviceMemoryError
from glraster.segmentation.predict import Predictor

log = logging.getLogger(__name__)

Scores = TypeVar("Scores")


def with_back_off(predictor: Predictor, scores: Callable[[Predictor], Scores]) -> tuple[Scores, Predictor]:
    """Compute scores, with half the batch as often as the device runs out of memory.

    Args:
        predictor: how to begin.
        scores: what to compute with it.

    Returns:
        The scores, and the predictor that could.

    Raises:
        DeviceMemoryError: where a single tile is too large.
    """
    while True:
        try:
            return scores(predictor), predictor
        except DeviceMemoryError:
            if predictor.batch == 1:
                raise
        predictor = replace(predictor, batch=predictor.batch // 2)
        log.warning("%s is out of memory; going on with %d tiles at a time", predictor.device, predictor.batch)
        if predictor.device.type == "cuda":
            torch.cuda.empty_cache()
