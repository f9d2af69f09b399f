"""A model file gives back what was saved, and every way in which it can be wrong is one clear line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from glraster.config import Architecture, LandClass, Mode, ModelSpec
from glraster.errors import ModelError, OutputError
from glraster.model.checkpoint import load, model_id, read_spec, save
from glraster.model.glnet import GLNet
from glraster.model.metadata import dump_spec

CLASSES = (LandClass(0, "water – eau", (0, 90, 255)), LandClass(254, "rock", (255, 255, 255)))
SPEC = ModelSpec(
    Architecture("local", bands=4, classes=2, backbone="resnet18", width=4, stem=8),
    CLASSES,
    dtype="uint16",
    scale=10000.0,
    mean=(0.1, 0.2, 0.3, 0.4),
    std=(0.5,),
    gsd_m=0.3,
    context_px=1000,
    tile_px=300,
    thumbnail_px=301,
    provenance={"catalog": "ab12", "miou": 0.5, "files": ["a", "b"]},
)


def saved(path: Path, spec: ModelSpec = SPEC) -> GLNet:
    torch.manual_seed(1)
    model = GLNet(spec.architecture)
    save(model, spec, path)
    return model.eval()


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        saved(path)
        yield path


@pytest.mark.parametrize("mode", ["global", "local", "full"])
def test_round_trip_is_exact(tmp_path: Path, mode: Mode) -> None:
    spec = replace(SPEC, architecture=replace(SPEC.architecture, mode=mode), gsd_m=None)
    model = saved(tmp_path / "m.safetensors", spec)
    loaded, loaded_spec = load(tmp_path / "m.safetensors")
    assert loaded_spec == spec == read_spec(tmp_path / "m.safetensors")
    assert not loaded.training
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    image = torch.rand(1, 4, 64, 64)
    assert torch.equal(loaded.global_logits(image), model.global_logits(image))


def test_the_same_model_is_the_same_file_with_the_same_id(tmp_path: Path, file: Path) -> None:
    saved(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert model_id(tmp_path / "again.safetensors") == model_id(file)
    saved(tmp_path / "other.safetensors", replace(SPEC, gsd_m=0.4))
    assert model_id(tmp_path / "other.safetensors") != model_id(file)


def test_half_precision_weights_load_as_single(tmp_path: Path, file: Path) -> None:
    path = rewritten(file, tmp_path, lambda weights: {name: x.half() for name, x in weights.items()})
    state, full = load(path)[0].state_dict(), load(file)[0].state_dict()
    assert path.stat().st_size < 0.55 * file.stat().st_size
    for name, value in state.items():
        assert value.dtype == full[name].dtype
        torch.testing.assert_close(value, full[name].half().to(value.dtype))


def test_reading_the_spec_needs_no_torch(file: Path) -> None:
    script = "import sys; from glraster.model.checkpoint import read_spec, model_id; "
    script += f"read_spec({str(file)!r}), model_id({str(file)!r}); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_saving_replaces_whole_files_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    saved(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.m\.safetensors: cannot write the model .*; check the folder"):
        saved(tmp_path / "nowhere" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write the model"):
        saved(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_saving_another_spec_than_the_network(tmp_path: Path) -> None:
    model = GLNet(SPEC.architecture)
    with pytest.raises(ValueError, match=r"the spec describes .*'full'.*, the network is .*'local'"):
        save(model, replace(SPEC, architecture=replace(SPEC.architecture, mode="full")), tmp_path / "m")
    with pytest.raises(ValueError, match="class id 0 is given twice"):
        save(model, replace(SPEC, classes=(CLASSES[0], CLASSES[0])), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def with_bytes(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(content)
    return path


def damaged(file: Path) -> dict[str, bytes]:
    whole = file.read_bytes()
    return {
        "empty": b"",
        "short": whole[:7],
        "text": b"hello, this is no model at all",
        "huge header": (1 << 60).to_bytes(8, "little") + whole[8:],
        "cut in header": whole[:200],
        "no json": (20).to_bytes(8, "little") + b"x" * 40,
        "json list": (2).to_bytes(8, "little") + b"[]",
        "deep json": (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "entry without offsets": (9).to_bytes(8, "little") + b'{"a": {}}',
        "entry that is a number": (8).to_bytes(8, "little") + b'{"a": 1}',
    }


@pytest.mark.parametrize("name", damaged(Path(__file__)))
def test_files_that_are_no_model(tmp_path: Path, file: Path, name: str) -> None:
    path = with_bytes(tmp_path, damaged(file)[name])
    for read in (read_spec, load):
        with pytest.raises(ModelError, match=r"wrong\.safetensors: not a model of glraster, or damaged; a model is"):
            read(path)


@pytest.mark.parametrize("change", [-1, 1], ids=["cut", "longer"])
def test_files_of_another_length_than_they_say(tmp_path: Path, file: Path, change: int) -> None:
    whole = file.read_bytes()
    path = with_bytes(tmp_path, whole[:-1] if change < 0 else whole + b"0")
    for read in (read_spec, load):
        with pytest.raises(
            ModelError, match=rf"{len(whole) + change} bytes instead of {len(whole)}; get the file again"
        ):
            read(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_pytorch_files_are_refused_unopened(tmp_path: Path, legacy: bool) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "sprung").touch, ())

    path = tmp_path / "model.safetensors"
    torch.save({"weight": Trap()}, path, _use_new_zipfile_serialization=not legacy)
    for read in (read_spec, load):
        with pytest.raises(
            ModelError, match="a PyTorch file, not a model; convert it with 'glraster model import' first"
        ):
            read(path)
    assert not (tmp_path / "sprung").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for read in (read_spec, load, model_id):
        with pytest.raises(ModelError, match=r"none\.safetensors: cannot be read \(No such file.*\); check the path"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(ModelError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)


def rewritten(
    file: Path,
    folder: Path,
    weights: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
    metadata: dict[str, str] | None = None,
) -> Path:
    """The model file with other weights or another description."""
    path = folder / "wrong.safetensors"
    save_file(weights(load_file(file)), path, metadata or {"glraster": dump_spec(SPEC)})
    return path


def without(weights: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: x for name, x in weights.items() if name not in names}


NAME = "local.fpn.lateral.0.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, NAME), f"do not fit the network: it lacks {NAME}; get the file again"),
        (lambda w: w | {"extra": torch.zeros(1)}, "it has the unknown extra;"),
        (lambda w: w | {NAME: torch.zeros(3)}, rf"it has {NAME} as \[3\] instead of \[4\]"),
        (lambda w: w | {NAME: torch.zeros(4, dtype=torch.int64)}, f"it has {NAME} as I64, not a floating-point type"),
        (lambda w: {n: x for n, x in w.items() if "guide" not in n}, r"it lacks guide.*, lacks guide.* and \d+ more"),
        (lambda w: w | {NAME: torch.tensor([0, 1, float("nan"), 0])}, f"{NAME} holds values that are not finite"),
        (lambda w: w | {NAME: torch.tensor([0, 1, float("inf"), 0])}, f"{NAME} holds values that are not finite"),
    ],
)
def test_weights_that_are_not_those_of_the_network(tmp_path: Path, file: Path, change: Any, message: str) -> None:
    path = rewritten(file, tmp_path, change)
    assert read_spec(path) == SPEC
    with pytest.raises(ModelError, match=rf"wrong\.safetensors: .*{message}"):
        load(path)


def test_a_file_from_before_number_formats_were_compared(tmp_path: Path, file: Path) -> None:
    described = json.loads(dump_spec(SPEC))
    del described["bfloat16_agreement"]
    older = rewritten(file, tmp_path, metadata={"glraster": json.dumps(described)})
    assert read_spec(older).bfloat16_agreement is None


def test_an_architecture_that_would_not_fit_in_memory(tmp_path: Path, file: Path) -> None:
    described = json.loads(dump_spec(SPEC)) | {"mean": [0.0]}
    described["architecture"]["bands"] = 10**9
    with pytest.raises(ModelError, match=r"has guide.backbone.conv1.weight as \[8, 4, 7, 7\] instead of"):
        load(rewritten(file, tmp_path, metadata={"glraster": json.dumps(described)}))


@pytest.mark.parametrize("metadata", [{"other": "x"}, {"format": "pt"}])
def test_safetensors_of_others(tmp_path: Path, file: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="safetensors, but not of glraster: it lacks the model's description"):
        load(rewritten(file, tmp_path, metadata=metadata))


WRONG_SPECS: list[tuple[dict[str, object], str]] = [
    ({"bfloat16_agreement": 1.5}, "bfloat16_agreement is 1.5, not a share from 0 to 1"),
    ({"bfloat16_agreement": "all"}, "bfloat16_agreement is 'all'"),
    ({"format_version": 2}, "format version 2 is newer than this glraster knows; upgrade glraster"),
    ({"format_version": None}, "format_version is None, not a whole number"),
    ({"format_version": True}, "format_version is True, not a whole number"),
    ({"colour": 1}, "the metadata has unknown colour"),
    ({"scale": ...}, "the metadata lacks scale"),
    ({"scale": 0}, "scale is 0, not a positive number"),
    ({"scale": "255"}, "scale is '255', not a finite number"),
    ({"scale": True}, "scale is True, not a finite number"),
    ({"dtype": "complex64"}, "dtype is 'complex64', not one of uint8, "),
    ({"mean": [0.0, 0.0]}, "mean has 2 values for 4 bands; give one, or one per band"),
    ({"mean": 0.0}, "mean is 0.0, not a list"),
    ({"std": [1, 1, 0, 1]}, "std is 0, not a positive number"),
    ({"std": [float("nan")]}, "std is nan, not a finite number"),
    ({"gsd_m": 0}, "gsd_m is 0, not a positive number"),
    ({"gsd_m": float("inf")}, "gsd_m is inf, not a finite number"),
    ({"context_px": 0}, "context_px is 0, not a whole number of 1 or more"),
    ({"thumbnail_px": -508}, "thumbnail_px is -508, not a whole number"),
    ({"tile_px": 508.0}, "tile_px is 508.0, not a whole number"),
    ({"tile_px": True}, "tile_px is True, not a whole number"),
    ({"tile_px": 510}, "tile_px 510 is not a multiple of 4"),
    ({"provenance": "mine"}, "provenance is 'mine', not an object"),
    ({"classes": {}}, r"classes is \{\}, not a list"),
    ({"classes": []}, "0 classes are described, the network has 2"),
    ({"architecture": 1}, "architecture is 1, not an object"),
]
WRONG_CLASSES: list[tuple[dict[str, object], str]] = [
    ({"id": 0}, "class id 0 is given twice"),
    ({"id": 255}, r"classes\[1\]\.id is 255, not a whole number from 0 to 254"),
    ({"id": -1}, r"classes\[1\]\.id is -1, not"),
    ({"id": True}, r"classes\[1\]\.id is True, not"),
    ({"name": ""}, r"classes\[1\]\.name is '', not a name"),
    ({"name": 3}, r"classes\[1\]\.name is 3, not a name"),
    ({"name": ...}, r"classes\[1\] lacks name"),
    ({"ignore": True}, r"classes\[1\] has unknown ignore"),
    ({"color": [0, 0, 256]}, r"classes\[1\]\.color is 256, not a whole number from 0 to 255"),
    ({"color": [0, 0]}, r"classes\[1\]\.color has 2 parts, not red, green and blue"),
    ({"color": "red"}, r"classes\[1\]\.color is 'red', not a list"),
]
WRONG_ARCHITECTURES: list[tuple[dict[str, object], str]] = [
    ({"mode": "both"}, "architecture.mode is 'both', not one of global, local, full"),
    ({"mode": ["full"]}, r"architecture.mode is \['full'\], not one of"),
    ({"backbone": "vgg16"}, "architecture.backbone is 'vgg16', not one of resnet18, resnet34, resnet50, lite0"),
    ({"backbone": "lite2", "stem": 64}, "architecture.stem is 64, lite2 has 32 channels there"),
    ({"bands": 0}, "architecture.bands is 0, not a whole number of 1 or more"),
    ({"classes": True}, "architecture.classes is True, not a whole number"),
    ({"classes": 3}, "2 classes are described, the network has 3"),
    ({"width": 5}, "architecture.width 5 is odd"),
    ({"stem": 0}, "architecture.stem is 0, not a whole number of 1 or more"),
    ({"width": ...}, "architecture lacks width"),
    ({"depth": 2}, "architecture has unknown depth"),
]


def altered(record: dict[str, Any], change: dict[str, object]) -> None:
    record.update(change)
    for name in [name for name, value in change.items() if value is ...]:
        del record[name]


def described(place: str, change: dict[str, object]) -> str:
    record = json.loads(dump_spec(SPEC))
    altered({"spec": record, "class": record["classes"][1], "architecture": record["architecture"]}[place], change)
    return json.dumps(record)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [("spec", *case) for case in WRONG_SPECS]
    + [("class", *case) for case in WRONG_CLASSES]
    + [("architecture", *case) for case in WRONG_ARCHITECTURES],
)
def test_impossible_descriptions(tmp_path: Path, place: str, change: dict[str, object], message: str) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"glraster": described(place, change)})
    for read in (read_spec, load):
        with pytest.raises(ModelError, match=rf"wrong\.safetensors: {message}") as raised:
            read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "not json", "[]", "3", "null", "[" * 100_000], ids=range(6))
def test_descriptions_that_are_no_description(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"glraster": text})
    with pytest.raises(ModelError, match=r"wrong\.safetensors: (the metadata is not JSON|format_version is None)"):
        read_spec(path)
