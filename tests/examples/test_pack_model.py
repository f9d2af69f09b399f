"""A packed model is half as large and maps the same."""

from collections.abc import Callable
from pathlib import Path

import torch
from click.testing import CliRunner
from pack_model import main

from glraster.model.checkpoint import load


def test_packed_model_is_half_as_large_and_nearly_the_same(model_file: Callable[..., Path], tmp_path: Path) -> None:
    source, target = model_file("local"), tmp_path / "packed.safetensors"
    outcome = CliRunner().invoke(main, [str(source), str(target)])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith(str(target))
    assert target.stat().st_size < 0.55 * source.stat().st_size
    (model, spec), (packed, same) = load(source), load(target)
    assert (spec.classes, spec.architecture) == (same.classes, same.architecture)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(packed.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
