"""A training starts from new weights, a backbone, or a model, and says what is wrong with a file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.errors import ModelError
from glraster.model.checkpoint import save
from glraster.model.glnet import GLNet
from glraster.model.resnet import ResNet
from glraster.training.initial import architecture_of, find_backbone, normalisation, read_initial, with_classes

ARCH = Architecture("local", 3, 2, "resnet18", 8, 64)


def torchvision_state(name: str = "resnet18") -> dict[str, torch.Tensor]:
    """A state dict as torchvision's files have it: a classifier, and no batch counters in the old ones."""
    torch.manual_seed(5)
    state = {k: v for k, v in ResNet(name, 3).state_dict().items() if not k.endswith("num_batches_tracked")}
    return {**state, "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18-f37072fd.pth"
    torch.save(torchvision_state(), path)
    return path


def model_file(path: Path, arch: Architecture = ARCH, names: tuple[str, ...] = ("land", "water")) -> Path:
    torch.manual_seed(1)
    classes = tuple(LandClass(i, name, (0, 0, 0)) for i, name in enumerate(names))
    save(GLNet(arch), ModelSpec(arch, classes, mean=(0.4,), std=(0.3,)), path)
    return path


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_backbone_goes_into_every_branch(tmp_path: Path, backbone: Path, ending: str) -> None:
    path, state = backbone, torchvision_state()
    if ending == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    initial = read_initial(path, ARCH)
    model = initial.new_model(Architecture("full", 3, 2, "resnet18", 8, 64), 1.0)
    assert model.local is not None
    assert model.refined is not None
    for branch in (model.guide, model.local, model.refined):
        own = branch.backbone.state_dict()
        assert all(torch.equal(own[k], v) for k, v in state.items() if not k.startswith("fc."))
    assert initial.identity is not None
    assert initial.identity == read_initial(path, ARCH).identity


@pytest.mark.parametrize("bands", [1, 4])
def test_other_bands_see_the_mean_of_the_filters(backbone: Path, bands: int) -> None:
    arch = Architecture("global", bands, 2, "resnet18", 8, 64)
    model = read_initial(backbone, arch).new_model(arch, 1.0).eval()
    rgb = read_initial(backbone, ARCH).new_model(Architecture("global", 3, 2, "resnet18", 8, 64), 1.0).eval()
    grey = torch.rand(1, 1, 32, 32)
    ours, theirs = (
        model.guide.backbone.conv1(grey.repeat(1, bands, 1, 1)),
        rgb.guide.backbone.conv1(grey.repeat(1, 3, 1, 1)),
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_imagenet_is_found_in_the_cache_or_where_the_variable_says(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLRASTER_IMAGENET", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(
        ModelError,
        match=r"checkpoints: has no ImageNet weights of resnet18; put torchvision's resnet18-f37072fd\.pth there",
    ):
        find_backbone("resnet18")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("resnet18-00000000.pth", "resnet18-f37072fd.pth", "resnet50-0676ba61.pth"):
        os.link(backbone, checkpoints / name)
    assert find_backbone("resnet18").name == "resnet18-f37072fd.pth"
    assert read_initial("imagenet", ARCH).backbone is not None
    monkeypatch.setenv("GLRASTER_IMAGENET", str(backbone))
    assert find_backbone("resnet50") == backbone
    monkeypatch.setenv("GLRASTER_IMAGENET", str(tmp_path))
    assert find_backbone("resnet18") == backbone
    with pytest.raises(ModelError, match="resnet34-b627a593"):
        find_backbone("resnet34")


class Trap:
    """What a malicious file holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trapped",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("trap", "no file of weights, or unsafe"),
        ("text", "no file of weights, or unsafe"),
        ("list", "no state dict"),
        ("other", r"no resnet18 in torchvision's format: layer1\.0\."),
        ("nan", "not finite"),
        ("missing", "cannot be read .No such file"),
    ],
)
def test_files_that_are_no_backbone_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    if content == "text":
        path.write_text("hello")
    elif content != "missing":
        bad = torchvision_state()
        bad["conv1.weight"][0, 0, 0, 0] = float("nan")
        held = {"trap": Trap(), "list": [1, 2], "other": torchvision_state("resnet50"), "nan": bad}
        torch.save(held[content], path)
    with pytest.raises(ModelError, match=told):
        read_initial(path, ARCH)
    assert not (tmp_path / "trapped").exists()


def test_a_backbone_needs_its_stem(backbone: Path) -> None:
    with pytest.raises(ModelError, match="has a stem of 64 channels, the network 32; add --arch stem=64"):
        read_initial(backbone, Architecture("local", 3, 2, "resnet18", 8, 32))


@pytest.mark.parametrize("init", [None, "none"])
def test_nothing_is_new_weights(init: str | None) -> None:
    initial = read_initial(init, ARCH)
    assert (initial.identity, initial.model, initial.backbone) == (None, None, None)
    assert architecture_of(init) is None


def test_a_model_tells_its_network_and_its_value_range(tmp_path: Path) -> None:
    path = model_file(tmp_path / "model.safetensors")
    assert architecture_of(path) == ARCH
    initial = read_initial(path, ARCH)
    assert initial.model is not None
    own = ModelSpec(ARCH, initial.spec.classes if initial.spec else (), mean=(0.1,), std=(0.2,))
    assert normalisation(own, initial.spec).mean == (0.4,)
    assert normalisation(own, None).mean == (0.1,)


def test_another_network_is_told(tmp_path: Path) -> None:
    path = model_file(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"another network .*: width 8 instead of 16; leave --arch out"):
        read_initial(path, Architecture("local", 3, 2, "resnet18", 16, 64))
    with pytest.raises(ModelError, match="bands 3 instead of 4; use images with as many bands"):
        read_initial(path, Architecture("local", 4, 2, "resnet18", 8, 64))


def test_classes_keep_their_weights_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "glraster")
    model = read_initial(model_file(tmp_path / "model.safetensors"), ARCH).model
    assert model is not None
    assert with_classes(model, ("land", "water"), ("land", "water"), model) is model
    torch.manual_seed(9)
    fresh = GLNet(Architecture("local", 3, 3, "resnet18", 8, 64))
    new = {k: v.clone() for k, v in fresh.state_dict().items()}
    wider = with_classes(model, ("land", "water"), ("water", "road", "land"), fresh).state_dict()
    assert "knows 2 of the 3 classes by name" in caplog.text
    for name, old in model.state_dict().items():
        if ".classify." in name or name.startswith("aggregate."):
            assert torch.equal(wider[name][[2, 0]], old), name
            assert torch.equal(wider[name][1], new[name][1]), name
        else:
            assert torch.equal(wider[name], old), name
