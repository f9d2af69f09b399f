"""Speed and memory of a window in every form of the network: `python benchmarks/segment.py [--scene FILE]`.

All forms compute the same window with the same weights: ResNet-50, full model, new weights whose BatchNorm knows the
scene. Each lives in a process of its own, so that its peak memory is its own; they take turns, round by round, and the
best round of each counts. With `--scene`, the default model also maps a scene by the command, in float32 and as auto:
whether labels stay the same in bfloat16 is a question for a trained model, random weights hardly tell classes apart.

    plain         the network as it was published: foreign maps enlarged and concatenated, one convolution after another
    folded        what `segment` runs, in float32
    auto          the same in the number format that `--precision auto` chooses for models whose labels bear it
    large tiles   as auto, with tiles of twice the side
    floor         the backbones alone on the same tiles: BatchNorm folded, channels-last, torch's own operators
    lean floor    the backbones alone, in the form in which `folded` runs them
    auto floor    the same as floor in the number format of auto
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.model.checkpoint import load, save
from glraster.model.fold import FoldedGLNet
from glraster.model.fold.lean import LeanResNet
from glraster.model.glnet import GLNet, Pyramid
from glraster.model.resnet import ResNet
from glraster.process import keep_freed_memory, peak_memory_bytes
from glraster.raster.grid import usual_overlap
from glraster.segmentation.device import (
    choose_batch,
    choose_device,
    computes_bfloat16,
    describe_device,
)
from glraster.segmentation.predict import Predictor, TileForm

VARIANTS = ("plain", "folded", "auto", "large tiles", "floor", "lean floor", "auto floor")
CLASSES = 7
CONTEXT, TILE = 2448, 508

Image = np.ndarray[Any, np.dtype[np.uint8]]
Work = Callable[[], np.ndarray[Any, np.dtype[Any]] | None]


class Backbones:
    """The backbones of a network behind the interface of a network; what it gives as logits means nothing."""

    def __init__(self, model: GLNet, form: Callable[[nn.Module], Callable[[Tensor], Any]], dtype: torch.dtype) -> None:
        pyramids = [cast(Pyramid, pyramid) for pyramid in (model.guide, model.local, model.refined)]
        self.guide, self.local, self.refined = (form(pyramid.backbone) for pyramid in pyramids)
        self.dtype = dtype

    @torch.inference_mode()
    def tile_logits(self, thumbnail: Tensor, tiles: Any, *_: Any) -> Any:
        small = thumbnail.to(self.dtype, memory_format=torch.channels_last)
        self.guide(small)
        for batch in tiles:
            finest = self.local(batch.to(self.dtype, memory_format=torch.channels_last))[0]
            yield finest[:, :CLASSES].float()
        self.refined(small)

    @torch.inference_mode()
    def global_logits(self, thumbnail: Tensor) -> Tensor:
        finest: Tensor = self.guide(thumbnail.to(self.dtype, memory_format=torch.channels_last))[0]
        return finest[:, :CLASSES].float()


def folded_by_torch(net: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Any]:
    """A ResNet with BatchNorm folded, channels-last, and every operator torch's own."""
    for module in list(net.modules()):
        children = dict(module.named_children())
        for first, second in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):
            norm = children.get(second)
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(cast(nn.Conv2d, children[first]), norm))
                setattr(module, second, nn.Identity())
    return net.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def work_of(variant: str, model_path: Path, image: Image) -> Work:
    """What one round of a variant does."""
    model, spec = load(model_path)
    device = choose_device("cpu")
    short = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    dtype = short if variant.startswith(("auto", "large")) else torch.float32
    if variant != "plain":
        keep_freed_memory()
    if variant == "plain":
        network: Any = model
    elif variant == "lean floor":
        local = model.local.backbone if model.local else None
        network = Backbones(model, lambda net: LeanResNet.of(cast(ResNet, net), dtype, often=net is local), dtype)
    elif "floor" in variant:
        network = Backbones(model, lambda net: folded_by_torch(net, dtype), dtype)
    else:
        network = FoldedGLNet(model, "full", dtype)
    tile = 2 * TILE if variant == "large tiles" else TILE
    tiles = TileForm(min(tile, *image.shape[1:]), usual_overlap(tile))
    batch = choose_batch(None, device) if tile == TILE else 1
    predictor = Predictor(network, spec, "full", tiles, device, dtype, batch, CONTEXT)
    return lambda: predictor.cell_scores(image)


def child(variant: str, folder: Path) -> None:
    """Run a round for every line on stdin, and answer with its seconds and the memory so far."""
    work = work_of(variant, folder / "model.safetensors", np.load(folder / "image.npy"))
    print(json.dumps({"ready": variant}), flush=True)
    for _ in sys.stdin:
        began, computed = time.perf_counter(), time.process_time()
        scores = work()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
        assert scores is not None
        np.save(folder / f"{variant}.npy", scores.argmax(axis=0).astype(np.uint8))
        found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_bytes": peak_memory_bytes()}
        print(json.dumps(found), flush=True)


def make_inputs(folder: Path, side: int) -> None:
    """Write a scene's pixels and a model with random weights whose activations are in scale."""
    import rasterio
    from make_scene import make_scene

    scene, _ = make_scene(folder / "scene.tif", width=side, height=side)
    with rasterio.open(scene) as source:
        image = source.read((1, 2, 3))
    np.save(folder / "image.npy", image)
    torch.manual_seed(0)
    model = GLNet(Architecture("full", 3, CLASSES))
    crops = torch.from_numpy(np.stack([image[:, y : y + 192, y : y + 192] for y in (0, side // 2)])).float() / 255
    with torch.no_grad():
        for pyramid in (model.guide, model.local, model.refined):
            assert pyramid is not None
            for module in pyramid.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # the mean of what it sees
            pyramid.backbone.train()(crops)
    classes = tuple(LandClass(i, str(i), (i, i, i)) for i in range(CLASSES))
    save(model.eval(), ModelSpec(model.arch, classes, context_px=CONTEXT, tile_px=TILE), folder / "model.safetensors")


def compare(folder: Path, variants: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Let the variants take turns; best seconds and peak memory of each, and how many labels are as the plain ones."""
    children = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--child", name, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in variants
    }
    results: dict[str, dict[str, float]] = {}
    try:
        for process in children.values():
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(rounds):
            for name, process in children.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                found = json.loads(process.stdout.readline())
                before = results.get(name, found)
                best = {key: min(found[key], before[key]) for key in ("seconds", "cpu_seconds")}
                results[name] = {**best, "peak_memory_bytes": found["peak_memory_bytes"]}
    finally:
        for process in children.values():
            process.terminate()
            process.wait()
    if "plain" in results:
        reference = np.load(folder / "plain.npy")
        for name in results:
            if "floor" not in name and name != "large tiles":
                results[name]["same_labels"] = float((np.load(folder / f"{name}.npy") == reference).mean())
    return results


def segment_scene(scene: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Map a scene with the default model by the command, in float32 and as auto."""
    found = {}
    for precision in ("float32", "auto"):
        command = [sys.executable, "-m", "glraster_cli", "segment", scene, "-o", str(folder / f"{precision}.tif")]
        call = [*command, "--precision", precision, "--json", *options]
        found[precision] = json.loads(subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout)
    import rasterio

    with rasterio.open(folder / "float32.tif") as one, rasterio.open(folder / "auto.tif") as other:
        same = known = 0
        for _, window in one.block_windows(1):
            labels = one.read(1, window=window)
            same += int(((labels == other.read(1, window=window)) & (labels != 255)).sum())
            known += int((labels != 255).sum())
    return {"runs": found, "same_labels": same / max(1, known)}


def table(results: dict[str, dict[str, float]], megapixels: float) -> str:
    """Seconds, speed, ratios and memory, one line for each variant; on a shared machine, CPU seconds tell more."""
    lines = [f"{'':12} {'s':>7} {'CPU s':>7} {'MPx/s':>7} {'x plain':>8} {'x floor':>8} {'MiB':>6} {'same labels':>12}"]
    for name, found in results.items():
        seconds = found["seconds"]
        faster = results["plain"]["seconds"] / seconds if "plain" in results else float("nan")
        floor = results.get("auto floor" if name in ("auto", "large tiles", "auto floor") else "floor")
        slower = seconds / floor["seconds"] if floor else float("nan")
        same = f"{100 * found['same_labels']:10.3f} %" if "same_labels" in found else ""
        memory = found["peak_memory_bytes"] / 2**20
        lines.append(
            f"{name:12} {seconds:7.2f} {found['cpu_seconds']:7.2f} {megapixels / seconds:7.2f} {faster:8.2f} "
            f"{slower:8.2f} {memory:6.0f} {same:>12}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=CONTEXT, help="pixels of the window's side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--scene", help="a scene for the default model")
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="gsd=0.5, for example")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder)
        return
    record: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "device": describe_device(torch.device("cpu")),
        "cores": os.cpu_count(),
        "side_px": arguments.side,
        "auto": "bfloat16" if computes_bfloat16(torch.device("cpu")) else "float32",
    }
    with tempfile.TemporaryDirectory() as name:
        if arguments.only:
            make_inputs(Path(name), arguments.side)
            record["variants"] = compare(Path(name), arguments.only, arguments.rounds)
            print(f"{record['date'][:10]}, {record['device']}, torch {record['torch']}, auto is {record['auto']}")
            print(table(record["variants"], arguments.side**2 / 1e6))
        if arguments.scene:
            options = [text for option in arguments.option for text in ("--" + option).split("=", 1)]
            record["scene"] = segment_scene(arguments.scene, options, Path(name))
            for precision, run in record["scene"]["runs"].items():
                print(
                    f"default model, {precision}: {run['seconds']:.1f} s, {run['mpx_per_s']:.2f} MPx/s, "
                    f"{run['peak_memory_bytes'] / 2**20:.0f} MiB, device waits {100 * run['device_wait_share']:.1f} %"
                )
            print(f"same labels: {100 * record['scene']['same_labels']:.3f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
