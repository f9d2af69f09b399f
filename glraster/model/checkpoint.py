"""The model file: weights and spec in one safetensors file. Reading checks all of it and runs no code."""

from __future__ import annotations

import hashlib
import json
import math
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from glraster.config import ModelSpec
from glraster.errors import ModelError, OutputError
from glraster.files import replacing
from glraster.model.metadata import dump_spec, parse_spec

if TYPE_CHECKING:
    from torch import Tensor

    from glraster.model.glnet import GLNet

# torch is imported inside the functions that need it: without it a spec is read in milliseconds

_KEY = "glraster"
_COUNTER = "num_batches_tracked"
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format
_DTYPES = ("F32", "F16", "BF16")

DEFAULT_MODEL = "default"
"""The name of the model that comes with glraster."""


def model_path(name: str | os.PathLike[str] | None) -> Path:
    """The file of a model: `name` as a path, or the file that comes with glraster if it is "default" or None."""
    if name is None or str(name) == DEFAULT_MODEL:
        return Path(str(files("glraster.model").joinpath("default.safetensors")))
    return Path(name)


def save(model: GLNet, spec: ModelSpec, path: str | Path, *, half: bool = False) -> None:
    """Write a model file, whole or not at all; it replaces a file of that name.

    Args:
        model: the network.
        spec: its description, with the architecture of the network.
        path: usually `*.safetensors`.
        half: store weights as float16, half the size; `load` makes them float32 again.

    Raises:
        ValueError: if the spec contradicts itself or the network.
        OutputError: if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if spec.architecture != model.arch:
        raise ValueError(f"the spec describes {spec.architecture}, the network is {model.arch}")
    metadata = {_KEY: dump_spec(spec)}
    weights = {name: x.detach().cpu().contiguous() for name, x in _weights(model).items()}
    if half:
        weights = {name: x.half() for name, x in weights.items()}
    path = Path(path)
    try:
        with replacing(path, durable=True) as temporary:
            temporary.touch()
            permissions = temporary.stat().st_mode
            save_file(weights, temporary, metadata)
            temporary.chmod(permissions)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot write the model ({error}); check the folder and its space") from error


def load(path: str | Path) -> tuple[GLNet, ModelSpec]:
    """Read a model file.

    Args:
        path: what `save` wrote. Weights stored as float16 or bfloat16 become float32.

    Returns:
        The network in eval mode on the CPU, and its spec.

    Raises:
        ModelError: if the file is damaged or unsafe, or if its weights are not exactly those of its network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from glraster.model.glnet import GLNet

    path = Path(path)
    spec, header = _read_header(path)
    with torch.device("meta"):
        model = GLNet(spec.architecture)
    # shapes are compared before anything is allocated: a header can claim any size
    _check_tensors(path, header, {name: tuple(x.shape) for name, x in _weights(model).items()})
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); get the file again") from error
    model.to_empty(device="cpu")
    model.load_state_dict({**_counters(model), **weights})
    for name, x in _weights(model).items():
        if not bool(torch.isfinite(x).all()):
            raise ModelError(f"{path}: {name} holds values that are not finite; use an earlier checkpoint")
    return model.eval(), spec


def read_spec(path: str | Path) -> ModelSpec:
    """Read the spec of a model file, without its weights and without torch.

    Args:
        path: what `save` wrote.

    Returns:
        The spec.

    Raises:
        ModelError: if the file is not a model, damaged, or its spec impossible.
    """
    return _read_header(Path(path))[0]


def model_id(path: str | Path) -> str:
    """First twelve hexadecimal digits of the SHA-256 of a model file: the same for every copy of it.

    Raises:
        ModelError: if the file cannot be read.
    """
    return file_sha256(Path(path))[:12]


def parameter_count(path: str | Path) -> int:
    """Number of weights in a model file, without the running statistics of BatchNorm.

    Raises:
        ModelError: if the file is not a model, or damaged.
    """
    _, header = _read_header(Path(path))
    shapes = [x.get("shape") for name, x in header.items() if not name.endswith(("running_mean", "running_var"))]
    if not all(isinstance(shape, list) and all(isinstance(side, int) for side in shape) for shape in shapes):
        raise ModelError(_not_a_model(Path(path), b""))
    return sum(math.prod(shape) for shape in shapes if isinstance(shape, list))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content.

    Raises:
        ModelError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _weights(model: GLNet) -> dict[str, Tensor]:
    """The tensors that a file stores: all but BatchNorm's batch counters, which nothing reads."""
    return {name: x for name, x in model.state_dict().items() if not name.endswith(_COUNTER)}


def _counters(model: GLNet) -> dict[str, Tensor]:
    return {name: x.new_zeros(()) for name, x in model.state_dict().items() if name.endswith(_COUNTER)}


def _read_header(path: Path) -> tuple[ModelSpec, dict[str, dict[str, object]]]:
    """The spec and, per tensor, the safetensors entry (dtype, shape, data_offsets)."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise ModelError(_not_a_model(path, start))
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {}).get(_KEY)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError) as error:
        raise ModelError(_not_a_model(path, start)) from error
    if not isinstance(metadata, str):
        raise ModelError(f"{path}: safetensors, but not of glraster: it lacks the model's description")
    if 8 + length + end != size:
        raise ModelError(f"{path}: {size} bytes instead of {8 + length + end}; get the file again, it is damaged")
    try:
        return parse_spec(metadata), header
    except ValueError as error:
        raise ModelError(f"{path}: {error}; write the model again, or use another") from error


def _not_a_model(path: Path, start: bytes) -> str:
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return f"{path}: a PyTorch file, not a model; convert it with 'glraster model import' first"
    return f"{path}: not a model of glraster, or damaged; a model is a .safetensors file that glraster wrote"


def _check_tensors(path: Path, header: dict[str, dict[str, object]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Check that a file has the tensors of its network: names, shapes and types."""
    problems = [f"lacks {name}" for name in shapes.keys() - header.keys()]
    problems += [f"has the unknown {name}" for name in header.keys() - shapes.keys()]
    for name in shapes.keys() & header.keys():
        shape, dtype = header[name].get("shape"), header[name].get("dtype")
        if shape != list(shapes[name]):
            problems.append(f"has {name} as {shape} instead of {list(shapes[name])}")
        elif dtype not in _DTYPES:
            problems.append(f"has {name} as {dtype}, not a floating-point type")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        first = ", ".join(sorted(problems)[:3])
        raise ModelError(f"{path}: the weights do not fit the network: it {first}{more}; get the file again")
