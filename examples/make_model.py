"""Write a small GLNet with random weights: `python examples/make_model.py demo/model.safetensors`.

It has learned nothing; its map shows how a scene is segmented, not what is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.model.checkpoint import save
from glraster.model.glnet import GLNet

CLASSES = (
    LandClass(0, "building", (200, 60, 50)),
    LandClass(1, "bare land", (205, 178, 132)),
    LandClass(2, "road", (90, 90, 96)),
    LandClass(3, "vegetation", (86, 140, 62)),
    LandClass(4, "water", (52, 104, 176)),
)


def make_model(path: Path, seed: int = 0) -> None:
    """Write a model of five classes for 0.5 m RGB imagery; the same seed gives the same weights."""
    torch.manual_seed(seed)
    architecture = Architecture(mode="full", bands=3, classes=len(CLASSES), backbone="resnet18", width=32, stem=16)
    network = GLNet(architecture).eval()
    for name, weight in network.named_parameters():
        if weight.dim() == 4 and "backbone" not in name:
            torch.nn.init.kaiming_normal_(weight)  # the paper's 0.01 would make every logit nearly zero
    spec = ModelSpec(architecture, CLASSES, gsd_m=0.5, context_px=2048, tile_px=512, thumbnail_px=512)
    save(network, spec, path)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", default=0, show_default=True)
def main(path: Path, seed: int) -> None:
    """Write a small model with random weights to PATH."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_model(path, seed)
    print(f"{path}: random weights, its map means nothing", file=sys.stderr)


if __name__ == "__main__":
    main()
