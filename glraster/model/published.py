"""The data sets of GLNet's paper, which imported models were trained on."""

from __future__ import annotations

from collections.abc import Mapping

from glraster.config import Architecture, LandClass, ModelSpec, class_color

DEEPGLOBE = (
    LandClass(0, "unknown", (0, 0, 0)),
    LandClass(1, "urban_land", (0, 255, 255)),
    LandClass(2, "agriculture_land", (255, 255, 0)),
    LandClass(3, "rangeland", (255, 0, 255)),
    LandClass(4, "forest_land", (0, 255, 0)),
    LandClass(5, "water", (0, 0, 255)),
    LandClass(6, "barren_land", (255, 255, 255)),
)
"""Land cover of DeepGlobe 2018, numbered as GLNet does: "unknown" first."""

INRIA = (LandClass(0, "background", (0, 0, 0)), LandClass(1, "building", (255, 255, 255)))
"""Inria Aerial Image Labeling."""


def training_set(arch: Architecture, provenance: Mapping[str, object]) -> ModelSpec:
    """Describe an official model by its number of classes: 7 is DeepGlobe, 2 is Inria.

    Any other number gets classes named by their numbers, and DeepGlobe's sizes.

    Args:
        arch: the network.
        provenance: where its weights come from.

    Returns:
        The spec. All official models see RGB / 255.
    """
    if arch.classes == len(DEEPGLOBE):
        return ModelSpec(arch, DEEPGLOBE, gsd_m=0.5, provenance=provenance)
    if arch.classes == len(INRIA):
        return ModelSpec(arch, INRIA, gsd_m=0.3, context_px=5000, tile_px=536, thumbnail_px=536, provenance=provenance)
    classes = tuple(LandClass(i, f"class_{i}", class_color(i)) for i in range(arch.classes))
    return ModelSpec(arch, classes, provenance=provenance)
