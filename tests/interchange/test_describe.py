"""`glraster model describe`: a STAC item with the Machine Learning Model extension."""

from __future__ import annotations

import json

import pytest
from interchange.stac_rules import MLM

from glraster.model.checkpoint import model_id, model_path, read_spec

pystac = pytest.importorskip("pystac")
jsonschema = pytest.importorskip("jsonschema")


def check(item: dict) -> None:
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, item["stac_version"])
    jsonschema.validate(item["properties"], MLM)
    (asset,) = item["assets"].values()
    assert "mlm:model" in asset["roles"]
    assert asset["mlm:artifact_type"] == "safetensors"


@pytest.mark.parametrize("mode", ["global", "local", "full"])
def test_item_says_what_the_model_wants_and_gives(mode, model_file, run):
    file = model_file(mode)
    item = json.loads(run("model", "describe", file).out)
    check(item)
    properties = item["properties"]
    assert item["id"] == properties["mlm:name"] == f"glraster-{model_id(file)}"
    (taken,), (given,) = properties["mlm:input"], properties["mlm:output"]
    assert taken["input"]["shape"] == [-1, 3, 96, 96]
    assert taken["value_scaling"] == [{"type": "z-score", "mean": 0.35 * 255, "stddev": 0.2 * 255}] * 3
    assert given["result"]["shape"] == [-1, 3, 24, 24]
    assert [c["value"] for c in given["classification:classes"]] == [3, 7, 1]
    assert properties["mlm:hyperparameters"]["mode"] == mode
    assert item["assets"]["model"]["file:size"] == file.stat().st_size


def test_weights_are_counted(model_file, run):
    from glraster.model.checkpoint import load

    file = model_file("full")
    item = json.loads(run("model", "describe", file).out)
    network, _ = load(file)
    assert item["properties"]["mlm:total_parameters"] == sum(p.numel() for p in network.parameters())


def test_others_read_the_default_models_item_back(tmp_path, run):
    from pystac.extensions.mlm import MLMExtension

    path = tmp_path / "model.json"
    outcome = run("model", "describe", "default", "-o", path)
    assert (outcome.code, outcome.err) == (0, "")
    item = pystac.Item.from_file(str(path))
    described = MLMExtension.ext(item)
    assert described.architecture == "GLNet"
    assert [b.name if hasattr(b, "name") else b for b in described.input[0].bands] == ["band-1", "band-2", "band-3"]
    assert described.output[0].classes[0].value == 0
    assert item.properties["license"] == "CC0-1.0"
    assert item.properties["datetime"] == f"{read_spec(model_path(None)).provenance['date']}T00:00:00Z"
    check(json.loads(path.read_text()))


def test_an_item_that_exists_is_kept(tmp_path, model_file, run):
    path = tmp_path / "model.json"
    path.write_text("precious")
    outcome = run("model", "describe", model_file(), "-o", path)
    assert (outcome.code, path.read_text()) == (1, "precious")
    assert "use --overwrite to replace it" in outcome.err
    assert run("model", "describe", model_file(), "-o", path, "--overwrite").code == 0
    assert json.loads(path.read_text())["type"] == "Feature"


def test_what_is_no_model_is_told(tmp_path, run):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    outcome = run("model", "describe", tmp_path / "a.safetensors")
    assert (outcome.code, outcome.out) == (1, "")
    assert "not a model of glraster" in outcome.err
