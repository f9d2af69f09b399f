"""The number format follows the hardware and what is known of the model."""

from __future__ import annotations

import pytest
import torch

from glraster.segmentation.device import choose_batch, choose_precision, computes_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("native", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_bfloat16_where_the_processor_has_it(
    native: bool, amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert computes_bfloat16(CPU) == expected
    assert choose_precision("auto", CPU, 0.995) == (torch.bfloat16 if expected else torch.float32)


@pytest.mark.parametrize("agreement", [None, 0.989, 0.0])
def test_float32_where_labels_would_change_or_nobody_knows(
    agreement: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert choose_precision("auto", CPU, agreement) == torch.float32


def test_a_torch_without_these_questions_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert choose_precision("auto", CPU, 1.0) == torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_where_the_gpu_has_it(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert computes_bfloat16(torch.device("cuda:1")) == expected


def test_what_is_asked_for_is_done() -> None:
    for name in ("float32", "bfloat16"):
        assert choose_precision(name, CPU, None) == getattr(torch, name)
    assert not computes_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(("tile", "batch"), [(508, 2), (256, 8), (64, 8), (1016, 1), (4000, 1)])
def test_smaller_tiles_go_in_larger_batches(tile: int, batch: int) -> None:
    assert choose_batch(None, CPU, tile) == batch
    assert choose_batch(3, CPU, tile) == 3
