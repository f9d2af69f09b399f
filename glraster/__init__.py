"""Land-cover maps of scenes of any size with Collaborative Global-Local Networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glraster._version import __version__

if TYPE_CHECKING:
    from glraster.workflows.segment import SegmentOptions, SegmentResult, segment

__all__ = ["SegmentOptions", "SegmentResult", "__version__", "segment"]


def __getattr__(name: str) -> Any:
    # torch and rasterio take seconds to import: only a call that needs them pays.
    if name in __all__:
        return getattr(import_module("glraster.workflows.segment"), name)
    raise AttributeError(f"module 'glraster' has no attribute {name!r}")
