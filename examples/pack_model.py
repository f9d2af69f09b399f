"""Store a trained model in float16: `python examples/pack_model.py runs/default/model.safetensors OUT.safetensors`."""

from __future__ import annotations

from pathlib import Path

import click

from glraster.model.checkpoint import load, save


@click.command()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def main(source: Path, target: Path) -> None:
    """Write the model of SOURCE to TARGET with half the size."""
    model, spec = load(source)
    save(model, spec, target, half=True)
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
