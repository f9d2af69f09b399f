"""The folded network is the same function: every identity it rests on, and the whole against the plain network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model.test_glnet import TILINGS, network, tiles_of

from glraster.config import Branch, Mode
from glraster.errors import UsageError
from glraster.model.fold import FoldedGLNet, lean
from glraster.model.fold.border import Strips, chain
from glraster.model.fold.lean import LeanResNet, lean_backbone, lean_conv
from glraster.model.fold.local import fold_finest
from glraster.model.fold.sampling import fold_sampler, sample_places
from glraster.model.fold.taps import composed_products, resizing, shifted, shifted_twice, spread, tap_products
from glraster.model.fold.winograd import WinogradConv, transformed
from glraster.model.glnet import GLNet
from glraster.model.lite import LITE, EfficientNetLite
from glraster.model.resnet import BACKBONES, ResNet
from glraster.model.sharing import Tiling

TOLERANCE = 1e-4
SPARSE = {
    "many tiles": Tiling(400, 480, 128, 96, (0, 64, 136, 200, 272), (0, 60, 130, 200, 260, 320, 384)),
    "odd sides": Tiling(330, 470, 132, 100, (0, 66, 132, 198), (0, 60, 130, 200, 260, 320, 370)),
}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def last(maps: torch.Tensor) -> torch.Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize(("cells", "size"), [(26, 127), (127, 26), (3, 16), (1, 5), (5, 1), (7, 7)])
def test_resizing_is_a_matrix(cells: int, size: int) -> None:
    maps = torch.randn(1, 2, cells, cells)
    matrix = resizing(cells, size)
    close(matrix @ maps @ matrix.T, F.interpolate(maps, (size, size), mode="bilinear"))


@pytest.mark.parametrize(("small", "large"), [((5, 7), (21, 19)), ((9, 4), (9, 4)), ((3, 2), (1, 2))])
@pytest.mark.parametrize("side", [1, 3, 9])
def test_a_convolution_of_a_resized_map_is_a_sum_over_taps(
    small: tuple[int, int], large: tuple[int, int], side: int
) -> None:
    maps, weight = last(torch.randn(2, 6, *small)), torch.randn(4, 6, side, side)
    rows, columns = (shifted(resizing(a, b), side // 2) for a, b in zip(small, large, strict=True))
    found = spread(F.conv2d(maps, tap_products(weight)), rows, columns)
    resized = F.interpolate(maps, large, mode="bilinear")
    close(found, F.conv2d(resized, weight, padding=side // 2))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 2), (12, 15)])
def test_two_convolutions_in_a_row_are_49_products(size: tuple[int, int]) -> None:
    maps, inner, outer = last(torch.randn(2, 5, 4, 6)), torch.randn(7, 5, 3, 3), torch.randn(3, 7, 3, 3)
    rows, columns = (shifted_twice(resizing(a, b)) for a, b in zip((4, 6), size, strict=True))
    found = spread(F.conv2d(maps, composed_products(outer, inner)), rows, columns)
    resized = F.interpolate(maps, size, mode="bilinear")
    close(found, F.conv2d(F.conv2d(resized, inner, padding=1), outer, padding=1))


@pytest.mark.parametrize("size", [(9, 9), (9, 14), (23, 17)])
def test_four_convolutions_are_one_of_nine_by_nine_and_a_border(size: tuple[int, int]) -> None:
    kernels = [torch.randn(a, b, 3, 3) for a, b in ((3, 4), (4, 5), (5, 6), (6, 2))]

    def backwards(cells, cut):
        for kernel in kernels[:-1]:
            cells = cut(F.conv_transpose2d(cells, kernel))
        return F.conv_transpose2d(cells, kernels[-1])

    expected = maps = torch.randn(2, 2, *size)
    for kernel in reversed(kernels):
        expected = F.conv2d(expected, kernel, padding=1)
    found = chain(backwards, 3, kernels[0])
    once = F.conv2d(maps, found.inner, padding=4)
    close(once[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])
    assert (once - expected).abs().max() > 0.1 * expected.abs().max()
    found.add(Strips.of(maps), once)
    close(once, expected)


def test_level_zero_is_one_convolution_for_each_source() -> None:
    """E * F * S2 * S1 on [ps0, guide's ps0], [ps1, guide's ps1], [ps2, guide's ps2], biases and border included."""
    width, size = 6, (11, 13)
    head, fuse = torch.randn(2, 8, 3, 3), torch.randn(8, width, 3, 3)
    smooth1 = torch.randn(width, 2 * width, 3, 3), torch.randn(width)
    smooth2 = torch.randn(width // 2, 2 * width, 3, 3), torch.randn(width // 2)
    own, *guides = (torch.randn(1, c, *size) for c in (width, width, width, width // 2))
    ps1 = F.conv2d(torch.cat([own, guides[0]], 1), *smooth1, padding=1)
    ps2 = F.conv2d(torch.cat([ps1, guides[1]], 1), *smooth2, padding=1)
    expected = F.conv2d(F.conv2d(torch.cat([ps2, guides[2]], 1), fuse, padding=1), head, padding=1)
    finest = fold_finest(head, fuse, smooth2, smooth1, torch.float32)
    sources = last(torch.cat(guides, 1))
    eyes = [shifted(torch.eye(side), 4) for side in size]
    found = finest.across(finest.down(last(own))) + spread(finest.foreign(sources), *eyes)
    finest.border.add(Strips.of(torch.cat([own, sources], 1)), found)
    rows, columns = ([i if i < 4 else max(4, i - side + 9) for i in range(side)] for side in size)
    close(found + finest.constant[:, rows][:, :, columns], expected)


@pytest.mark.parametrize(("size", "footprint"), [((127, 127), (26, 26)), ((32, 24), (10, 6)), ((30, 41), (7, 13))])
def test_maps_sampled_are_maps_shrunk(size: tuple[int, int], footprint: tuple[int, int]) -> None:
    width = 4
    smooth1 = torch.randn(width, 2 * width, 3, 3), torch.randn(width)
    smooth2 = torch.randn(width // 2, 2 * width, 3, 3), torch.randn(width // 2)
    ps0, guide0, guide1 = last(torch.randn(2, width, *size)), *(last(torch.randn(2, width, *footprint)) for _ in "01")
    large0, large1 = (F.interpolate(guide, size, mode="bilinear") for guide in (guide0, guide1))
    ps1 = F.conv2d(torch.cat([ps0, large0], 1), *smooth1, padding=1)
    ps2 = F.conv2d(torch.cat([ps1, large1], 1), *smooth2, padding=1)
    places = sample_places(size, footprint)
    assert places is not None
    found = fold_sampler(smooth1, smooth2, torch.float32)(ps0, (guide0, guide1), places)
    for actual, dense in zip(found, (ps1, ps2), strict=True):
        close(actual, F.interpolate(dense, footprint, mode="bilinear"))


@pytest.mark.parametrize(("size", "footprint"), [((127, 127), (64, 64)), ((127, 127), (26, 127)), ((4, 4), (1, 1))])
def test_samples_are_declined_where_they_would_be_dense_or_at_the_border(
    size: tuple[int, int], footprint: tuple[int, int]
) -> None:
    expected = size == (4, 4)  # its one sample lies in the middle, two cells from the border
    assert (sample_places(size, footprint) is not None) == expected


@pytest.mark.parametrize("size", [(1, 1), (4, 5), (16, 16), (33, 50), (130, 7)])
@pytest.mark.parametrize("kept", [True, False])
def test_winograd_is_a_convolution(size: tuple[int, int], kept: bool) -> None:
    maps, weight, bias = last(torch.randn(2, 130, *size)), torch.randn(5, 130, 3, 3), torch.randn(5)
    add = last(torch.randn(2, 5, *size))
    expected = F.conv2d(maps, weight, bias, padding=1) + add
    conv = WinogradConv(transformed(weight) if kept else weight, bias)
    close(conv(maps, add=add), expected, 2e-5)
    close(conv(maps, relu=True), F.conv2d(maps, weight, bias, padding=1).relu(), 2e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_a_sum_and_relu_are_fused(relu: bool, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused:
        monkeypatch.setattr(lean, "_FUSED", None)
        monkeypatch.setattr(lean, "_FUSED_SUM", None)
    maps, weight, bias = last(torch.randn(2, 4, 9, 9)), torch.randn(6, 4, 3, 3), torch.randn(6)
    conv = lean_conv(weight, bias, torch.float32, stride=2)
    expected = F.conv2d(maps, weight, bias, stride=2, padding=1)
    add = last(torch.randn_like(expected))
    close(conv(maps, relu=relu), expected.relu() if relu else expected)
    total = expected + add
    close(conv(maps, relu=relu, add=add), total.relu() if relu else total)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("size", [(64, 96), (70, 101), (36, 33)])
@pytest.mark.parametrize("name", LITE)
def test_a_lean_lite_backbone_is_the_backbone(
    monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int], fused: bool
) -> None:
    if not fused:
        monkeypatch.setattr(lean, "_FUSED", None)
        monkeypatch.setattr(lean, "_FUSED_SUM", None)
    net = EfficientNetLite(name, bands=4)
    unsettle(net)
    image = 3 * torch.randn(2, 4, *size)
    with torch.inference_mode():
        for actual, expected in zip(lean_backbone(net, torch.float32)(last(image)), net(image), strict=True):
            close(actual, expected, 3e-5)


@pytest.mark.parametrize("often", [True, False])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_lean_backbone_is_the_backbone(name: str, often: bool) -> None:
    net = ResNet(name, bands=4, stem=64 if often else 16)
    unsettle(net)
    image = torch.rand(2, 4, 70, 101)
    with torch.inference_mode():
        for actual, expected in zip(
            LeanResNet.of(net, torch.float32, often=often)(last(image)), net(image), strict=True
        ):
            close(actual, expected, 3e-5)


def unsettle(net: torch.nn.Module) -> None:
    """Give BatchNorm and biases values that show where they are forgotten."""
    for module in net.eval().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.3)


@pytest.mark.parametrize("branch", ["local", "full"])
@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize("tiling", (TILINGS | SPARSE).values(), ids=TILINGS | SPARSE)
def test_the_folded_network_gives_the_plain_ones_logits(tiling: Tiling, mode: Mode, branch: Branch) -> None:
    model = network(mode)
    unsettle(model)
    thumbnail, window = torch.rand(1, 3, 128, 100), torch.rand(1, 3, tiling.height, tiling.width)
    tiles = tiles_of(window, tiling)
    expected = torch.cat([*model.tile_logits(thumbnail, tiles.split(3), tiling, branch)])
    folded = FoldedGLNet(model, branch)
    for batch in (1, 3):
        close(torch.cat([*folded.tile_logits(thumbnail, tiles.split(batch), tiling, branch)]), expected, TOLERANCE / 10)


@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize("name", LITE)
def test_the_folded_network_on_lite_gives_the_plain_ones_logits(mode: Mode, name: str) -> None:
    model, tiling = network(mode, backbone=name), TILINGS["overlap"]
    unsettle(model)
    thumbnail, tiles = torch.rand(1, 3, 128, 100), tiles_of(torch.rand(1, 3, tiling.height, tiling.width), tiling)
    expected = torch.cat([*model.tile_logits(thumbnail, [tiles], tiling)])
    close(torch.cat([*FoldedGLNet(model, "full").tile_logits(thumbnail, [tiles], tiling)]), expected, TOLERANCE / 10)
    near = torch.cat([*FoldedGLNet(model, "full", torch.bfloat16).tile_logits(thumbnail, [tiles], tiling)])
    close(near, expected, 0.08)


@pytest.mark.parametrize("name", ["resnet18", "lite0"])
@pytest.mark.parametrize("tiling", (TILINGS | SPARSE).values(), ids=TILINGS | SPARSE)
def test_folded_tiles_give_the_plain_ones_logits(tiling: Tiling, name: str) -> None:
    model = network("tiles", backbone=name)
    unsettle(model)
    thumbnail, tiles = torch.rand(1, 3, 1, 1), tiles_of(torch.rand(1, 3, tiling.height, tiling.width), tiling)
    expected = torch.cat([*model.tile_logits(thumbnail, tiles.split(3), tiling, "local")])
    folded = FoldedGLNet(model, "local")
    close(torch.cat([*folded.tile_logits(thumbnail, tiles.split(3), tiling, "local")]), expected, TOLERANCE / 10)
    with pytest.raises(UsageError, match="sees tiles only, and no context"):
        folded.run_guide(thumbnail)
    with pytest.raises(UsageError, match="sees tiles only, and no context"):
        FoldedGLNet(model, "full")


@pytest.mark.parametrize("size", [(4, 4), (33, 50), (128, 60)])
def test_the_folded_guide_gives_the_plain_ones_logits(size: tuple[int, int]) -> None:
    model = network("global")
    unsettle(model)
    thumbnail = torch.rand(1, 3, *size)
    close(FoldedGLNet(model, "global").global_logits(thumbnail), model.global_logits(thumbnail), TOLERANCE / 10)


def test_bfloat16_is_near() -> None:
    model, tiling = network("full"), SPARSE["many tiles"]
    thumbnail, tiles = torch.rand(1, 3, 128, 100), tiles_of(torch.rand(1, 3, tiling.height, tiling.width), tiling)
    expected = torch.cat([*model.tile_logits(thumbnail, [tiles], tiling)])
    found = torch.cat([*FoldedGLNet(model, "full", torch.bfloat16).tile_logits(thumbnail, [tiles], tiling)])
    assert found.dtype == torch.float32
    close(found, expected, 0.05)


def test_the_plain_network_is_left_as_it_was() -> None:
    model = network("full")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FoldedGLNet(model, "full", torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_asking_for_what_was_not_folded() -> None:
    tiling, thumbnail = TILINGS["tile is window"], torch.rand(1, 3, 64, 96)
    with pytest.raises(UsageError, match="this model has a global branch only"):
        FoldedGLNet(network("global"), "full")
    folded = FoldedGLNet(network("local"), "local")
    with pytest.raises(UsageError, match="folded for the local branch"):
        folded.tile_logits(thumbnail, [], tiling, "full")
    with pytest.raises(ValueError, match="got 0 tiles of 1"):
        list(folded.tile_logits(thumbnail, [], tiling, "local"))
    with pytest.raises(ValueError, match="do not fit"):
        list(folded.tile_logits(thumbnail, [torch.rand(1, 3, 64, 64)], tiling, "local"))


def test_the_plain_networks_weights_are_not_kept() -> None:
    """Nothing of the plain network is held: it may be dropped, and its memory is free."""
    model: GLNet = network("full")
    held = {value.data_ptr() for value in model.state_dict().values() if value.numel() > 1}
    folded = FoldedGLNet(model, "full")
    found: list[torch.Tensor] = []
    seen: set[int] = set()

    def collect(value: object) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            for item in value.values():
                collect(item)
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("glraster"):
            collect(vars(value))

    collect(folded)
    assert len(found) > 50
    assert not [value.shape for value in found if value.data_ptr() in held]
