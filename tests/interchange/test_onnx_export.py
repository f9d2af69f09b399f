"""`glraster model export`: the ONNX form is the network, and Deepness finds what it reads."""

from __future__ import annotations

import builtins
import functools
import importlib.util
import json

import numpy as np
import pytest
import torch

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.interchange.models import export_model
from glraster.model.checkpoint import load, save
from glraster.model.glnet import GLNet
from glraster.raster.resize import resize_weights, thumbnail
from glraster.segmentation.predict import Predictor, TileForm

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name)


def session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def tile(side: int, seed: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 200, (3, side // 8, side // 8)).repeat(8, 1).repeat(8, 2)
    return (blocks + random.integers(0, 55, (3, side, side))).astype(np.uint8)


def as_deepness_feeds(image: np.ndarray, metadata: dict[str, str]) -> np.ndarray:
    """Bytes over 255, less the mean, over the deviation: what the plugin does with a tile."""
    mean, std = (np.reshape(json.loads(metadata[f"standardization_{k}"]), (3, 1, 1)) for k in ("mean", "std"))
    return ((image / 255.0 - mean) / std)[None].astype(np.float32)


@pytest.fixture(scope="module")
def exported(model_file, tmp_path_factory):
    """The model file and the ONNX file of each mode, exported once; the global one with an input of 64 px."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def export(mode):
        file, path = model_file(mode, gsd_m=0.5), folder / f"{mode}.onnx"
        return file, path, export_model(file, path, tile_px=64 if mode == "global" else None)

    return export


@pytest.mark.parametrize("mode", ["global", "local", "full", "tiles"])
def test_onnx_gives_the_probabilities_of_segment_on_one_tile(mode, exported):
    file, path, result = exported(mode)
    side = result.tile_px
    assert (side, result.bytes) == (64 if mode == "global" else 96, path.stat().st_size)
    assert result.deviation < 1e-3
    network, spec = load(file)
    image = tile(side)
    # float pixels: the predictor rounds the thumbnail of bytes to bytes
    predictor = Predictor(
        network, spec, network.arch.branch, TileForm(side, 0), torch.device("cpu"), torch.float32, 1, spec.context_px
    )
    cells = torch.from_numpy(predictor.cell_scores(image.astype(np.float32)))[None]
    expected = torch.nn.functional.interpolate(cells, (side, side), mode="bilinear").softmax(1).numpy()
    opened = session(path)
    given = opened.run(None, {"input": as_deepness_feeds(image, opened.get_modelmeta().custom_metadata_map)})[0]
    assert given.shape == (1, 3, side, side)
    assert np.abs(given - expected).max() < 1e-3
    assert expected.std() > 0.01, "the network says the same everywhere"


def test_onnx_of_a_lite_backbone_is_the_network(tmp_path, run):
    torch.manual_seed(2)
    network = GLNet(Architecture("tiles", 3, 2, "lite0", 8, 32)).eval()
    for name, weight in network.named_parameters():
        if weight.dim() == 4 and "fpn" in name:
            torch.nn.init.kaiming_normal_(weight)
    classes = (LandClass(0, "land", (0, 0, 0)), LandClass(1, "sea", (0, 0, 255)))
    save(network, ModelSpec(network.arch, classes, tile_px=64), tmp_path / "model.safetensors")
    outcome = run("model", "export", tmp_path / "model.safetensors", "-o", tmp_path / "model.onnx", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert (result["tile_px"], result["bytes"]) == (64, (tmp_path / "model.onnx").stat().st_size)
    image = torch.rand(1, 3, 64, 64)
    (given,) = session(tmp_path / "model.onnx").run(None, {"input": image.numpy()})
    with torch.inference_mode():
        logits = network.local(image).logits
    expected = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear").softmax(1).numpy()
    assert expected.std() > 0.01, "the network says the same everywhere"
    assert np.abs(given - expected).max() < 1e-3


def test_deepness_finds_its_metadata(exported):
    opened = session(exported("global")[1])
    metadata = {key: json.loads(value) for key, value in opened.get_modelmeta().custom_metadata_map.items()}
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {"0": "building & roof", "1": "bare land", "2": "water"}
    assert (metadata["resolution"], metadata["tile_size"], metadata["tiles_overlap"]) == (50, 64, 25)
    assert metadata["standardization_mean"] == pytest.approx([0.35] * 3)
    assert metadata["standardization_std"] == pytest.approx([0.2] * 3)
    assert metadata["seg_thresh"] == metadata["seg_small_segment"] == 0
    (taken,), (given,) = opened.get_inputs(), opened.get_outputs()
    assert (taken.shape, given.shape) == ([1, 3, 64, 64], [1, 3, 64, 64])


@pytest.mark.parametrize("sizes", [(96, 48), (508, 105), (7, 7), (10, 1)])
def test_the_thumbnail_as_a_matrix_is_the_thumbnail(sizes):
    length, size = sizes
    image = np.random.default_rng(1).random((2, length, length)).astype(np.float32)
    shrink = resize_weights(length, size)
    assert np.allclose(shrink @ image @ shrink.T, thumbnail(image, size, size), atol=1e-5)


def test_missing_packages_are_named(tmp_path, model_file, monkeypatch, run):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    outcome = run("model", "export", model_file(), "-o", tmp_path / "model.onnx")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "needs onnxscript: pip install 'glraster[onnx]'" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [0, -4, 30, 98])
def test_an_impossible_tile_is_a_wrong_call(side, tmp_path, model_file, run):
    outcome = run("model", "export", model_file(), "-o", tmp_path / "model.onnx", "--tile", side)
    assert outcome.code == 2
    assert "must be a multiple of 4, and 32 or more" in outcome.err


def test_an_output_that_exists_is_kept(tmp_path, model_file, monkeypatch, run):
    path = tmp_path / "model.onnx"
    path.write_text("precious")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: builtins.exit("exported in vain"))
    assert run("model", "export", model_file(), "-o", path).code == 1
    assert path.read_text() == "precious"


def test_a_form_that_differs_from_torch_is_refused(tmp_path, model_file, monkeypatch, run):
    import onnxruntime

    class Zeros(onnxruntime.InferenceSession):
        def run(self, *_):
            return [np.zeros((1, 3, 96, 96), np.float32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Zeros)
    outcome = run("model", "export", model_file("tiles"), "-o", tmp_path / "model.onnx")
    assert outcome.code == 1
    assert "the ONNX form differs from torch" in outcome.err
    assert not list(tmp_path.iterdir())
