"""Land-cover maps of scenes of any size with Collaborative Global-Local Networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glraster._version import __version__

if TYPE_CHECKING:
    from glraster.segmentation.segment import SegmentOptions, SegmentResult, segment
    from glraster.vector.vectorize import VectorizeOptions, VectorizeResult, vectorize

__all__ = [
    "SegmentOptions",
    "SegmentResult",
    "VectorizeOptions",
    "VectorizeResult",
    "__version__",
    "segment",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    # torch and rasterio take seconds to import: only a call that needs them pays.
    if name in __all__:
        room = "vector.vectorize" if "vectorize" in name.lower() else "segmentation.segment"
        return getattr(import_module(f"glraster.{room}"), name)
    raise AttributeError(f"module 'glraster' has no attribute {name!r}")
