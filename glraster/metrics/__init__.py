"""How well a map agrees with the truth: pure functions of counts."""

from glraster.metrics.counts import Confusion, class_iou, confusion, mean_iou

__all__ = ["Confusion", "class_iou", "confusion", "mean_iou"]
