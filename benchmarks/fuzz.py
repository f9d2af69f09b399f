"""Feed mutated text to glraster's parsers: `python benchmarks/fuzz.py TARGET [--guided] [--seconds S] [--runs N]`.

Targets: `model` (heads of model files), `metadata` (a model's description), `catalog` (YAML), `style` (class names
through the QGIS style). A parser may succeed, or raise the error it declares; everything else is a finding. Without
`--guided` mutations are random, each from its seed, and one line of JSON tells the counts. With it atheris (`pip
install atheris`) looks for new branches and ends with a trace where it finds something.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def check_model(data: bytes, folder: Path) -> None:
    """A file that starts as a model may be described or refused."""
    from glraster.errors import ModelError
    from glraster.interchange.mlm import model_item
    from glraster.model.checkpoint import read_spec

    path = folder / "case.safetensors"
    header = data[8:] if data[:1] == b"\x00" else data
    length = int.from_bytes(data[:8], "little") if data[:1] == b"\x00" else len(header)
    path.write_bytes((length % 2**64).to_bytes(8, "little") + header)
    try:
        json.dumps(model_item(path, read_spec(path), folder))
    except ModelError as error:
        str(error).encode()


def check_metadata(data: bytes, _: Path) -> None:
    """A spec's JSON is parsed to an equal record, or refused with a ValueError."""
    from glraster.model.metadata import dump_spec, parse_spec

    try:
        spec = parse_spec(data.decode("utf-8", "surrogatepass"))
    except ValueError:
        return
    assert parse_spec(dump_spec(spec)) == spec


def check_catalog(data: bytes, folder: Path) -> None:
    """A catalog is read, or refused with its problems."""
    from glraster.catalog import load_catalog
    from glraster.errors import CatalogError

    path = folder / "case.yaml"
    path.write_bytes(data)
    try:
        catalog = load_catalog(path)
        catalog.label_meanings()
        assert catalog.content_hash
    except CatalogError as error:
        str(error).encode()


def check_style(data: bytes, _: Path) -> None:
    """Class names survive XML, or their characters are marked."""
    import xml.etree.ElementTree as ET

    from glraster.config import LandClass
    from glraster.interchange.sidecars import qml

    names = data.decode("utf-8", "replace").split("\n")[:20]
    root = ET.fromstring(qml([LandClass(i, name, (0, 0, 0)) for i, name in enumerate(names)]))
    read = [entry.get("label") or "" for entry in root.iter("paletteEntry")]
    assert len(read) == len(names)
    assert all(
        a == b or b == "\ufffd" for one, other in zip(names, read, strict=True) for a, b in zip(one, other, strict=True)
    )


_CHECKS: dict[str, Callable[[bytes, Path], None]] = {
    "model": check_model,
    "metadata": check_metadata,
    "catalog": check_catalog,
    "style": check_style,
}

CATALOG = b"""name: a
classes:
  - {id: 0, name: background, color: [0, 0, 0]}
  - {id: 1, name: "field", color: [255, 0, 0], in_mean: false}
ignore: [255]
bands: [1, 2, 3]
gsd_m: 0.5
context_px: 2048
licence: CC-BY-4.0
root: .
labels: {encoding: index, values: {3: 1}}
splits:
  train: [{image: a.tif, label: b.tif, window: [0, 0, 10, 10]}]
  val: [{images: "*_rgb.tif", labels: "*_mask.tif"}]
"""


def seed_inputs(target: str) -> list[bytes]:
    """Valid inputs to start from."""
    from glraster.config import Architecture, LandClass, ModelSpec
    from glraster.model.metadata import dump_spec

    spec = dump_spec(
        ModelSpec(Architecture("local", 3, 2), (LandClass(0, "a", (0, 0, 0)), LandClass(1, "b", (1, 1, 1))))
    )
    header = json.dumps(
        {"__metadata__": {"glraster": spec}, "w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    )
    return {
        "model": [header.encode(), b"\x00" * 8 + header.encode()],
        "metadata": [spec.encode()],
        "catalog": [CATALOG],
        "style": [b'<script>&"\nwater\n\x01'],
    }[target]


def mutate_text(content: bytes, chance: random.Random) -> bytes:
    """A few cuts, copies and insertions of what parsers stumble over."""
    stumbling = [b"{", b"[", b'"', b"&a ", b"*a", b"!!python/name:os.system ", b"\x00", b"\xff\xfe", b"null", b"1e999"]
    stumbling += [
        b"-1",
        b"NaN",
        b"9" * 400,
        b"[" * 60,
        b": ",
        b"- ",
        b"\n",
        b"\xed\xa0\x80",
        b"0x10",
        b"2001-02-30",
        b"%",
    ]
    data = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            del data[at : at + chance.randint(1, 30)]
        elif kind == 1:
            data[at:at] = chance.choice(stumbling)
        elif kind == 2 and data:
            data[at % len(data)] = chance.randrange(256)
        else:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + chance.randint(1, 40)]
    return bytes(data)


def fuzz_text(target: str, first: int, runs: int, seconds: float) -> dict[str, Any]:
    """Random mutations in this process, each from its own seed."""
    sources, stop, tried = seed_inputs(target), time.monotonic() + seconds, 0
    findings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + runs):
            if time.monotonic() > stop:
                break
            tried += 1
            data = mutate_text(sources[seed % len(sources)], random.Random(seed))
            try:
                _CHECKS[target](data, Path(folder))
            except Exception as error:  # every kind is a finding
                findings.append({"seed": seed, "end": type(error).__name__, "told": str(error)[:200]})
    return {"target": target, "tried": tried, "findings": findings}


def fuzz_guided(target: str, seconds: float) -> None:
    """Search for new branches with atheris; it ends the process, with a trace where it finds something."""
    import atheris

    with atheris.instrument_imports(include=["glraster", "yaml"]):
        import glraster.catalog
        import glraster.interchange.mlm
        import glraster.interchange.sidecars
        import glraster.model.checkpoint  # noqa: F401
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, content in enumerate(seed_inputs(target)):
        (corpus / str(i)).write_bytes(content)
    options = [f"-max_total_time={seconds:.0f}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=3000", "-verbosity=0"]
    options += ["-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: _CHECKS[target](data, folder))
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=list(_CHECKS))
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--runs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--guided", action="store_true", help="with atheris")
    chosen = parser.parse_args()
    if chosen.guided:
        fuzz_guided(chosen.target, chosen.seconds)
        return
    counts = fuzz_text(chosen.target, chosen.first, chosen.runs, chosen.seconds)
    print(json.dumps(counts))
    sys.exit(1 if counts["findings"] else 0)


if __name__ == "__main__":
    main()
