"""The three modes, streaming, and the shapes that tiles and windows may have."""

from __future__ import annotations

import pytest
import torch

from glraster.config import Architecture, Branch, Mode
from glraster.errors import UsageError
from glraster.model.fpn import FPN
from glraster.model.glnet import GLNet
from glraster.model.metadata import FIXED_STEMS
from glraster.model.sharing import Tiling


def network(mode: Mode = "full", bands: int = 3, backbone: str = "resnet18", seed: int = 0) -> GLNet:
    """A small network whose logits are near one, so that differences show."""
    torch.manual_seed(seed)
    stem = FIXED_STEMS.get(backbone, 64)
    model = GLNet(Architecture(mode, bands, classes=4, backbone=backbone, width=16, stem=stem)).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 4 and "backbone" not in name:
            torch.nn.init.kaiming_normal_(weight)
    return model


def tiles_of(window: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    h, w = tiling.tile_height, tiling.tile_width
    return torch.cat([window[..., y : y + h, x : x + w] for y in tiling.tops for x in tiling.lefts])


TILINGS = {
    "overlap": Tiling(160, 224, 96, 64, (0, 32, 64), (0, 60, 160)),
    "two tiles": Tiling(128, 64, 64, 64, (0, 64), (0,)),
    "tile is window": Tiling(64, 96, 64, 96, (0,), (0,)),
    "tiny": Tiling(8, 16, 4, 4, (0, 4), (0, 4, 8, 12)),
}


@pytest.mark.parametrize("branch", ["local", "full"])
@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize("tiling", TILINGS.values(), ids=TILINGS)
def test_batches_come_back_in_order_and_their_size_changes_nothing(tiling: Tiling, mode: Mode, branch: Branch) -> None:
    model, window = network(mode), torch.rand(1, 3, tiling.height, tiling.width)
    tiles, thumbnail = tiles_of(window, tiling), torch.rand(1, 3, 64, 64)
    whole = torch.cat(list(model.tile_logits(thumbnail, [tiles], tiling, branch)))
    batches = list(model.tile_logits(thumbnail, tiles.split(2), tiling, branch))
    assert [b.shape[0] for b in batches] == [t.shape[0] for t in tiles.split(2)]
    assert whole.shape == (len(tiling), 4, tiling.tile_height // 4, tiling.tile_width // 4)
    torch.testing.assert_close(torch.cat(batches), whole, rtol=1e-4, atol=1e-5)


def test_the_aggregation_is_one_convolution_over_both_branches() -> None:
    model, tiling = network("local"), TILINGS["two tiles"]
    thumbnail, tiles = torch.rand(1, 3, 64, 32), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        guide = model.guide(thumbnail)  # its ps3 is 16 x 8 cells, a tile's footprint 8 x 8
        [(_, maps)] = model.local_maps([tiles], guide, tiling)
        context = torch.nn.functional.interpolate(
            torch.cat([guide.ps3[:, :, :8], guide.ps3[:, :, 8:]]), (16, 16), mode="bilinear"
        )
        expected = model.aggregate(torch.cat([maps.ps3, context], dim=1))
    torch.testing.assert_close(next(model.tile_logits(thumbnail, [tiles], tiling)), expected, rtol=1e-4, atol=1e-5)


def test_in_the_full_mode_every_tile_changes_every_other() -> None:
    model, tiling = network("full"), TILINGS["overlap"]
    thumbnail, tiles = torch.rand(1, 3, 64, 64), torch.rand(9, 3, 96, 64)
    changed = torch.cat([tiles[:8], 1 - tiles[8:]])
    for branch, same in (("local", True), ("full", False)):
        before, after = (next(model.tile_logits(thumbnail, t.split(1), tiling, branch)) for t in (tiles, changed))
        assert torch.equal(before, after) == same


def test_local_logits_stream() -> None:
    """A batch is read when its logits are asked for, not before."""
    model, tiling, read = network("full"), TILINGS["overlap"], []

    def batches() -> object:
        for i in range(9):
            read.append(i)
            yield torch.rand(1, 3, 96, 64)

    stream = model.tile_logits(torch.rand(1, 3, 64, 64), batches(), tiling, "local")
    next(stream)
    next(stream)
    assert read == [0, 1]
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_mode_tiles_sees_each_tile_for_itself(backbone: str) -> None:
    model, tiling = network("tiles", backbone=backbone), TILINGS["overlap"]
    tiles, thumbnail = torch.rand(9, 3, 96, 64), torch.rand(1, 3, 64, 64)
    assert model.local is not None
    with torch.inference_mode():
        expected = torch.cat([model.local(tile).logits for tile in tiles.split(1)])
    batches = torch.cat([*model.tile_logits(thumbnail, tiles.split(4), tiling, model.arch.branch)])
    torch.testing.assert_close(batches, expected, rtol=1e-4, atol=1e-4)
    assert {name.split(".")[0] for name in model.state_dict()} == {"local"}
    with pytest.raises(UsageError, match="sees tiles only, and no context"):
        model.tile_logits(thumbnail, [tiles], tiling, "full")
    with pytest.raises(UsageError, match="sees tiles only, and no context"):
        model.global_logits(thumbnail)


@pytest.mark.parametrize(("mode", "branches"), [("global", 1), ("local", 2), ("full", 3)])
def test_a_model_holds_what_its_mode_needs(mode: Mode, branches: int) -> None:
    names = {name.split(".")[0] for name in network(mode).state_dict()}
    assert names == {"guide", "local", "refined", "aggregate"} - {
        1: {"local", "refined", "aggregate"},
        2: {"refined"},
    }.get(branches, set())


@pytest.mark.parametrize("size", [(4, 4), (33, 50), (127, 64)])
def test_global_logits_have_a_quarter_of_the_size_rounded_up(size: tuple[int, int]) -> None:
    logits = network("global", bands=2).global_logits(torch.rand(1, 2, *size))
    assert logits.shape == (1, 4, -(-size[0] // 4), -(-size[1] // 4))


def test_new_weights_follow_the_seed() -> None:
    first, again, other = (network(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["local.backbone.conv1.weight"], other["local.backbone.conv1.weight"])


def test_new_weights_are_spread_as_in_the_paper() -> None:
    torch.manual_seed(0)
    model = GLNet(Architecture("local", 3, classes=7))
    state = model.state_dict()
    for name, std in (
        ("local.fpn.fuse.weight", 0.01),
        ("guide.fpn.lateral.3.weight", 0.01),
        ("aggregate.weight", 0.01),
        ("guide.backbone.layer4.0.conv2.weight", (2 / (512 * 9)) ** 0.5),
    ):
        assert state[name].std().item() == pytest.approx(std, rel=0.02)
    assert not state["local.fpn.fuse.bias"].any()
    assert not state["guide.fpn.classify.bias"].any()


def test_asking_for_what_the_model_lacks() -> None:
    tiling, thumbnail = TILINGS["tile is window"], torch.rand(1, 3, 64, 96)
    with pytest.raises(UsageError, match="this model has a global branch only"):
        network("global").tile_logits(thumbnail, [], tiling)
    with pytest.raises(UsageError, match="tiles have no 'global' logits: use 'local' or 'full'"):
        network("local").tile_logits(thumbnail, [], tiling, "global")


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        (torch.rand(2, 3, 64, 64), "got 2 tiles of 6"),
        (torch.rand(7, 3, 64, 64), "tiles 6 to 6, .* do not fit"),
        (torch.rand(6, 3, 64, 32), "tiles 0 to 0, .* do not fit"),
    ],
)
def test_tiles_that_are_not_those_of_the_tiling(tiles: torch.Tensor, message: str) -> None:
    tiling = Tiling(128, 192, 64, 64, (0, 64), (0, 64, 128))
    with pytest.raises(ValueError, match=message):
        list(network().tile_logits(torch.rand(1, 3, 64, 64), tiles.split(1), tiling))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (Architecture("both", 3, 4), "unknown mode 'both'"),  # type: ignore[arg-type]
        (Architecture("full", 3, 4, "vgg"), "unknown backbone 'vgg': use resnet18, resnet34, resnet50, lite0"),
        (Architecture("full", 3, 4, "lite1"), "lite1 has a stem of 32 channels, not 64"),
        (Architecture("full", 0, 4), "bands, classes and stem must be positive"),
        (Architecture("full", 3, 4, width=5), "width positive and even"),
    ],
)
def test_networks_that_do_not_exist(arch: Architecture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GLNet(arch)


def test_a_pyramid_takes_the_other_maps_where_it_shares_and_only_there() -> None:
    maps = tuple(torch.rand(1, 8, s, s) for s in (8, 4, 2, 1))
    for sharing, other in ((True, None), (False, (maps,) * 4)):
        with pytest.raises(ValueError, match="the sharing form needs the other branch's maps"):
            FPN((8, 8, 8, 8), 8, 2, sharing)(maps, other)
