"""Official checkpoints become models; a file in the wrong place, or of something else, is one clear line."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.official_inputs import official_shapes
from safetensors.torch import save_file

from glraster.errors import ModelError, UsageError
from glraster.model.checkpoint import load, read_spec, save
from glraster.model.official import import_official

State = dict[str, torch.Tensor]


def flat_state(classes: int = 7, stage: int = 3, value: float = 0.5, prefix: str = "module.") -> State:
    """A checkpoint of a few kilobytes: every tensor is one number, repeated by stride.

    Biases of the pyramids are zero where `stage` had not trained them yet.
    """
    state = {}
    for name, shape in official_shapes(classes).items():
        trained = stage >= (3 if "_ext" in name else 2 if "fpn_local" in name else 1)
        number = value if trained or not name.endswith("bias") else 0.0
        kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        state[prefix + name] = torch.tensor(number).to(kind).expand(shape)
    return state


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "any.pth", state: Any = None, legacy: bool = False, **how: Any) -> Path:
        state = flat_state(**how) if state is None else state
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        return tmp_path / name

    return write


@pytest.fixture
def trio(write: Callable[..., Path]) -> dict[str, Path]:
    """Three files as the authors' training leaves them: every stage goes on from the one before."""
    stages: dict[str, State] = {"g": flat_state(stage=1), "g2l": flat_state(stage=2), "l2g": flat_state(stage=3)}
    for name in stages["l2g"]:
        if "global" in name:  # stage 3 trains this branch further; its plain pyramid is not used after that
            stages["l2g"][name] = stages["l2g"][name] * 2
    return {name: write(f"{name}.pth", state) for name, state in stages.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_files_of_every_age_import(write: Callable[..., Path], legacy: bool, prefix: str) -> None:
    state = flat_state(classes=5, stage=1, prefix=prefix)
    if legacy:
        state = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    model, spec = import_official(write(state=state, legacy=legacy))
    assert (model.arch.mode, model.arch.classes, model.training) == ("global", 5, False)
    weights = model.state_dict()
    assert all(bool((x == 0.5).all()) for name, x in weights.items() if x.is_floating_point())
    assert len({c.color for c in spec.classes}) == len({c.name for c in spec.classes}) == 5


def test_every_branch_comes_from_its_file(trio: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    model, _ = import_official(trio["g"], trio["g2l"], trio["l2g"])
    state = model.state_dict()
    for name, value in (
        ("guide.backbone.conv1.weight", 0.5),
        ("guide.fpn.lateral.0.bias", 0.5),
        ("local.backbone.conv1.weight", 0.5),
        ("local.fpn.fuse.bias", 0.5),
        ("refined.backbone.conv1.weight", 1.0),
        ("refined.fpn.smooth2.3.weight", 1.0),
        ("refined.fpn.fuse.bias", 1.0),
        ("aggregate.weight", 0.5),
    ):
        assert (state[name] == value).all(), name
    assert not caplog.records


def test_deepglobe_is_recognised(tmp_path: Path, trio: dict[str, Path]) -> None:
    model, spec = import_official(trio["g"], local_to_global=trio["l2g"])
    assert [c.name for c in spec.classes][:3] == ["unknown", "urban_land", "agriculture_land"]
    assert [c.color for c in spec.classes][5:] == [(0, 0, 255), (255, 255, 255)]
    assert (spec.gsd_m, spec.context_px, spec.tile_px, spec.thumbnail_px) == (0.5, 2448, 508, 508)
    assert (spec.dtype, spec.scale, spec.mean, spec.std) == ("uint8", 255, (0,), (1,))
    files = spec.provenance["files"]
    assert isinstance(files, dict)
    assert set(files) == {"global", "local2global"}
    assert files["global"]["name"] == "g.pth"
    assert len(files["global"]["sha256"]) == 64
    save(model, spec, tmp_path / "m.safetensors")
    assert read_spec(tmp_path / "m.safetensors") == spec
    loaded = load(tmp_path / "m.safetensors")[0].state_dict()
    assert all(torch.equal(x, loaded[name]) for name, x in model.state_dict().items() if x.is_floating_point())


def test_inria_is_recognised(write: Callable[..., Path]) -> None:
    model, spec = import_official(None, write(classes=2, stage=2))
    assert model.arch.mode == "local"
    assert [c.name for c in spec.classes] == ["background", "building"]
    assert (spec.gsd_m, spec.context_px, spec.tile_px, spec.thumbnail_px) == (0.3, 5000, 536, 536)


@pytest.mark.parametrize("given", ["", "l2g", "g g2l", "g2l l2g"])
def test_files_that_make_no_model_together(given: str) -> None:
    paths = [f"{part}.pth" if part in given.split() else None for part in ("g", "g2l", "l2g")]
    with pytest.raises(UsageError, match="a model takes global alone, global2local alone, or global and"):
        import_official(*paths)


def test_a_name_that_tells_of_another_place(write: Callable[..., Path]) -> None:
    path = write("fpn_deepglobe_global2local.pth")
    with pytest.raises(
        ModelError, match=r"global2local\.pth: named as the global2local checkpoint, given as the global"
    ):
        import_official(path)
    with pytest.raises(ModelError, match="named as the global2local checkpoint, given as the local2global one; swap"):
        import_official(write(stage=1), None, path)


def test_one_content_in_two_places(write: Callable[..., Path]) -> None:
    path = write("a.pth")
    with pytest.raises(ModelError, match=r"b\.pth: the same content is given as global and as local2global"):
        import_official(path, None, shutil.copy(path, path.with_name("b.pth")))


def test_a_file_of_an_earlier_stage(write: Callable[..., Path]) -> None:
    with pytest.raises(
        ModelError, match="given as the global2local checkpoint, but that stage was never trained in it"
    ):
        import_official(None, write(stage=1))
    with pytest.raises(ModelError, match="given as the local2global checkpoint, but that stage was never trained"):
        import_official(write("a.pth", stage=1), None, write("b.pth", stage=2))


def test_a_file_of_a_later_stage_is_a_warning(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    import_official(write(stage=3))
    assert "given as the global checkpoint, but looks like the local2global one" in caplog.text


def test_stages_of_different_trainings_are_a_warning(
    write: Callable[..., Path], trio: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    other = write("other.pth", stage=1, value=0.25)
    with caplog.at_level(logging.WARNING):
        import_official(other, trio["g2l"], trio["l2g"])
    assert [r.getMessage() for r in caplog.records] == [
        "the global2local checkpoint was not trained on the global one: results may be poor"
    ]


def test_numbers_of_classes_that_differ(write: Callable[..., Path], trio: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"two\.pth: 2 classes, the other files have 7; use files of one training"):
        import_official(trio["g"], None, write("two.pth", classes=2))


KEY, BIAS = "module.fpn_global.smooth.weight", "module.fpn_local.classify.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(KEY), "not a whole checkpoint of GLNet: it lacks fpn_global.smooth.weight; give a file"),
        (lambda s: s.update({"module.extra": torch.zeros(1)}), "it has the unknown extra;"),
        (lambda s: s.update({BIAS: torch.zeros(3)}), r"it has fpn_local.classify.bias as \[3\] instead of \[7\]"),
        (
            lambda s: s.update({BIAS: torch.full((7,), float("nan"))}),
            "fpn_local.classify.bias with values that are not",
        ),
        (lambda s: s.update({BIAS: torch.zeros(7, dtype=torch.int32)}), "fpn_local.classify.bias with values that"),
        (lambda s: [s.pop(k) for k in list(s) if "resnet_local" in k], r"it lacks .*, lacks .*, lacks .* and \d+ more"),
        (lambda s: s.pop("module.ensemble_conv.weight"), "not a checkpoint of GLNet: it lacks ensemble_conv.weight"),
        (lambda s: s.update({"epoch": 3}), "holds something else than weights; give the state dict"),
    ],
)
def test_keys_that_are_not_those_of_glnet(write: Callable[..., Path], change: Any, message: str) -> None:
    state = flat_state(stage=1)
    change(state)
    with pytest.raises(ModelError, match=rf"any\.pth: .*{message}"):
        import_official(write(state=state))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, write: Callable[..., Path], legacy: bool) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "sprung").touch, ())

    path = write(state={**flat_state(), "trap": Trap()}, legacy=legacy)
    with pytest.raises(ModelError, match="not a PyTorch file of plain weights") as raised:
        import_official(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x02}broken"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"any\.pth: not a PyTorch file of plain weights"):
        import_official(tmp_path / "any.pth")


def test_a_cut_checkpoint(write: Callable[..., Path]) -> None:
    path = write()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"not a PyTorch file of plain weights \(\w+\); download it again"):
        import_official(path)


def test_a_model_file_or_none_at_all(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "any.pth")
    with pytest.raises(ModelError, match="a safetensors file, not a PyTorch checkpoint; a model needs no import"):
        import_official(tmp_path / "any.pth")
    with pytest.raises(ModelError, match=r"none\.pth: cannot be read \(No such file or directory\); check the path"):
        import_official(tmp_path / "none.pth")
