"""What context gives: GLNet beside its branches and a plain pyramid, trained alike.

`python benchmarks/branches.py examples/dubai.yaml -o FOLDER [--steps 1000] [--models guided fpn ...]` trains every
network that FOLDER lacks, on the same crops, and prints a table of scores on the val split and of speed. All networks
have the backbone, loss, augmentation and number of steps of the recipe for own data; what they see differs:

- fpn: crops alone, through a feature pyramid with normalisation and ReLU (Kirillov et al. 2019, Panoptic FPN);
- local: crops alone, through GLNet's local branch without the guide's maps;
- global: the thumbnail of the context window alone;
- guided: crops with the guide's maps; "wary" the same with half of the samples blind;
- halved: the network "guided" as a training leaves it, its tiles trusting the guide by half;
- full: half of the steps as guided, the other half the refined branch on top of it, the rest frozen.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.catalog import CatalogUnion, load_catalog, unite
from glraster.config import Architecture, ModelSpec
from glraster.labels.scenes import OpenScenes
from glraster.metrics import class_iou, mean_iou
from glraster.model.fpn import Maps, resize
from glraster.model.glnet import GLNet
from glraster.model.resnet import ResNet
from glraster.raster.source import gdal_session
from glraster.training.dataset import Sample, SampleForm, SampleSource
from glraster.training.fit import Fit, Length
from glraster.training.job import DataSummary, summarise
from glraster.training.losses import Loss, make_loss
from glraster.training.recipes import Recipe, choose_recipe
from glraster.training.stages import scale_guide, start_stage
from glraster.training.validate import validate


class PlainPyramid(nn.Module):
    """A backbone and a feature pyramid that knows no other branch; it takes the place of GLNet's guide."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.backbone = ResNet(arch.backbone, arch.bands, arch.stem)
        wide = 2 * arch.width
        self.lateral = nn.ModuleList(nn.Conv2d(c, wide, 1) for c in self.backbone.channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
            for _ in self.backbone.channels
        )
        self.classify = nn.Conv2d(wide, arch.classes, 1)

    def forward(self, image: Tensor) -> Maps:
        """Class an image (N, bands, H, W) at a quarter of its resolution."""
        levels = self.backbone(image)
        down = [self.lateral[3](levels[3])]
        for i in (2, 1, 0):
            lateral = self.lateral[i](levels[i])
            down.append(F.interpolate(down[-1], lateral.shape[-2:], mode="nearest") + lateral)
        finest = down[-1].shape[-2:]
        summed = sum(resize(smooth(x), finest) for smooth, x in zip(self.smooth, reversed(down), strict=True))
        assert isinstance(summed, Tensor)
        return Maps((), summed, self.classify(summed))


class Crops:
    """The tiles of another source's samples, one by one, as images of their own."""

    def __init__(self, source: SampleSource, per_sample: int) -> None:
        self._source, self._per_sample = source, per_sample
        self._last: tuple[int, Sample] | None = None

    def sample(self, number: int) -> Sample:
        """Tile `number` in the order of the samples."""
        whole, tile = divmod(number, self._per_sample)
        if self._last is None or self._last[0] != whole:
            self._last = whole, self._source.sample(whole)
        sample = self._last[1]
        tile %= len(sample.tiles)
        return replace(sample, thumbnail=sample.tiles[tile], thumbnail_label=sample.tile_labels[tile])


@dataclass(frozen=True)
class Contest:
    """What all networks have in common."""

    catalogs: CatalogUnion
    recipe: Recipe
    data: DataSummary
    spec: ModelSpec
    loss: Loss
    steps: int
    dtype: torch.dtype

    def fit(self, model: GLNet, stage: str, steps: int, *, crops: bool = False, **changes: Any) -> GLNet:
        """Train one stage, of `crops` where the network sees nothing else, and return the averaged network."""
        recipe = replace(self.recipe, **changes)
        tiles = None if stage == "full" else recipe.tiles
        form = SampleForm(self.spec.context_px, recipe.thumbnail_px, recipe.tile_px, tiles)
        per_sample = int(np.prod(recipe.tiles or (1, 1)))
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if crops:
            recipe = replace(recipe, batch=recipe.batch * per_sample)
        fit = Fit(model, recipe.stage(stage), recipe, Length(steps, steps))
        scenes, weights = OpenScenes(self.catalogs.members("train")), np.sqrt(self.data.images.areas).tolist()
        with SampleSource(scenes, weights, self.spec, form, recipe.augmentation, seed=0) as source:
            drawn: Any = Crops(source, per_sample) if crops else source
            started = time.perf_counter()
            for report in fit.run(drawn, self.loss, self.dtype):
                if report.step % 100 == 0:
                    seconds = time.perf_counter() - started
                    print(f"{stage} {report.step}/{steps} loss {report.losses.total:.3f} {seconds:.0f} s", flush=True)
        return fit.averaged


def build(name: str, arch: Architecture) -> GLNet:
    """A new network of that name."""
    mode: Any = name if name == "full" else "local" if name in ("guided", "halved", "wary") else "global"
    torch.manual_seed(0)
    model = GLNet(replace(arch, mode=mode))
    for weight_name, weight in model.named_parameters():
        if weight.dim() == 4 and ".backbone." not in weight_name:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    if name == "fpn":
        model.guide = PlainPyramid(arch)  # type: ignore[assignment]
    return model


def trained(name: str, contest: Contest) -> GLNet:
    """Train the network of that name."""
    model = build(name, contest.spec.architecture)
    if name in ("fpn", "local", "global"):
        return contest.fit(model, "global", contest.steps, crops=name != "global")
    if name == "guided":
        return contest.fit(model, "joint", contest.steps)
    if name == "wary":
        return contest.fit(model, "joint", contest.steps, blind=0.5)
    first = contest.fit(build("guided", contest.spec.architecture), "joint", contest.steps // 2)
    start_stage(model, first)
    return contest.fit(model, "full", contest.steps - contest.steps // 2, batch=2, tiles=None, blind=0.0)


def network(name: str, contest: Contest, folder: Path) -> GLNet:
    """The network of that name: what the folder holds, or a new one, which is then kept there."""
    if name == "halved":
        return scale_guide(network("guided", contest, folder), 0.5)
    weights = folder / f"{name}_{contest.steps}.pt"
    if not weights.exists():
        torch.save(trained(name, contest).state_dict(), weights)
    model = build(name, contest.spec.architecture)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def spec_of(name: str, contest: Contest) -> ModelSpec:
    """How the network is run: one that sees crops gets whole windows at full resolution, which suits it best."""
    model = build(name, contest.spec.architecture)
    spec = replace(contest.spec, architecture=model.arch)
    return replace(spec, thumbnail_px=spec.context_px) if name in ("fpn", "local") else spec


def make_contest(catalogs: CatalogUnion, steps: int) -> Contest:
    """Read what the networks have in common from a catalog."""
    recipe = choose_recipe("fast")
    data = summarise(catalogs, recipe)
    arch = Architecture("local", catalogs.bands, len(catalogs.classes), recipe.backbone, recipe.width, recipe.stem)
    spec = ModelSpec(
        architecture=arch,
        classes=catalogs.classes,
        dtype=data.images.dtype,
        scale=255.0,
        mean=tuple(mean / 255 for mean in data.images.mean),
        std=tuple(std / 255 for std in data.images.std),
        gsd_m=catalogs.gsd_m,
        context_px=catalogs.context_px,
        tile_px=recipe.tile_px,
        thumbnail_px=recipe.thumbnail_px,
    )
    loss = make_loss(recipe.loss, data.class_weights, data.class_offsets)
    return Contest(catalogs, recipe, data, spec, loss, steps, torch.bfloat16)


def scores(model: GLNet, name: str, contest: Contest) -> dict[str, Any]:
    """Score a network on the val split; `mpx_per_s` includes reading."""
    spec = spec_of(name, contest)
    started = time.perf_counter()
    counts, _ = validate(model, spec, contest.catalogs)
    seconds = time.perf_counter() - started
    iou = {c.name: float(score) for c, score in zip(spec.classes, class_iou(counts), strict=True)}
    parameters = sum(p.numel() for p in model.parameters())
    return {"miou": mean_iou(counts), "iou": iou, "mpx_per_s": counts.sum() / 1e6 / seconds, "parameters": parameters}


def main() -> None:
    """Train what is missing, then score everything in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    names = ["full", "guided", "halved", "wary", "global", "local", "fpn"]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    with gdal_session(2**30):
        contest = make_contest(unite(load_catalog(chosen.catalog)), chosen.steps)
        results = {}
        for name in chosen.models:
            results[name] = scores(network(name, contest, chosen.output), name, contest)
            print(name, json.dumps(results[name]), flush=True)
    (chosen.output / "scores.json").write_text(json.dumps(results, indent=1))
    classes = [c.name for c in contest.catalogs.classes]
    print(f"| model | M params | mIoU | {' | '.join(classes)} | MPx/s |\n|---|---|---|{'---|' * len(classes)}---|")
    for name, result in results.items():
        each = " | ".join(f"{result['iou'][c]:.3f}" for c in classes)
        print(
            f"| {name} | {result['parameters'] / 1e6:.1f} | {result['miou']:.3f} | {each} | {result['mpx_per_s']:.2f} |"
        )


if __name__ == "__main__":
    main()
