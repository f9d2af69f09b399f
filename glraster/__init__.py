"""Land-cover maps of scenes of any size with Collaborative Global-Local Networks.

The names below are loaded when they are first used: torch and rasterio take seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glraster._version import __version__

if TYPE_CHECKING:
    from glraster.api.land_cover import LandCover
    from glraster.api.verbs import (
        connect,
        evaluate,
        load_model,
        polygonize,
        preview,
        report,
        segment,
        train,
        vectorize,
    )
    from glraster.config import LandClass, ModelSpec
    from glraster.errors import (
        CatalogError,
        ClusterError,
        DeviceError,
        GlrasterError,
        ModelError,
        OutputError,
        ResumeError,
        SceneError,
        TruthError,
        UsageError,
    )
    from glraster.metrics.records import Evaluation, PointEvaluation
    from glraster.reporting.report import ReportOptions, ReportResult
    from glraster.segmentation.in_memory import Model
    from glraster.segmentation.segment import SegmentOptions, SegmentResult
    from glraster.training.train import TrainOptions, TrainResult
    from glraster.vector.vectorize import VectorizeOptions, VectorizeResult

_ROOMS = {
    "api.verbs": "connect evaluate load_model polygonize preview report segment train vectorize",
    "api.land_cover": "LandCover",
    "config": "LandClass ModelSpec",
    "errors": "CatalogError ClusterError DeviceError GlrasterError ModelError OutputError ResumeError SceneError "
    "TruthError UsageError",
    "metrics.records": "Evaluation PointEvaluation",
    "reporting.report": "ReportOptions ReportResult",
    "segmentation.in_memory": "Model",
    "segmentation.segment": "SegmentOptions SegmentResult",
    "training.train": "TrainOptions TrainResult",
    "vector.vectorize": "VectorizeOptions VectorizeResult",
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = [
    "CatalogError",
    "ClusterError",
    "DeviceError",
    "Evaluation",
    "GlrasterError",
    "LandClass",
    "LandCover",
    "Model",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "PointEvaluation",
    "ReportOptions",
    "ReportResult",
    "ResumeError",
    "SceneError",
    "SegmentOptions",
    "SegmentResult",
    "TrainOptions",
    "TrainResult",
    "TruthError",
    "UsageError",
    "VectorizeOptions",
    "VectorizeResult",
    "__version__",
    "connect",
    "evaluate",
    "load_model",
    "polygonize",
    "preview",
    "report",
    "segment",
    "train",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'glraster' has no attribute {name!r}")
    value = getattr(import_module(f"glraster.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
