"""What a recipe is worth on scenes that it has never seen: train without one scene, score on it, for every scene.

`python benchmarks/leave_one_out.py CATALOG -o FOLDER [glraster train's options]` takes every pair of the catalog's
train and val splits whose image matches `--of` as the scene to leave out, trains on all others for the whole of the
recipe's steps, and scores the last weights: no epoch is chosen on the scene that scores it. It prints a row for every
scene, their mean and their spread. A scene that FOLDER holds already is not trained again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import glraster
from glraster.catalog import Catalog, Pair, load_catalog
from glraster.catalog.write import write_catalog
from glraster.training.recipes import choose_recipe


def fold(catalog: Catalog, left_out: Pair, folder: Path) -> Path:
    """Write the catalog that trains on all pairs but one and validates on that."""
    others = tuple(pair for pair in (*catalog.train, *catalog.val) if pair != left_out)
    path = folder / f"{Path(left_out.image).stem}.yaml"
    write_catalog(replace(catalog, train=others, val=(left_out,), test=()), path, overwrite=True)
    return path


def score(catalog: Path, run: Path, options: argparse.Namespace, steps: int) -> dict[str, float | None]:
    """Train one fold, or read what it scored before; IoU by class name, the mean as `mIoU`."""
    known = run / "left_out.json"
    if not known.exists():
        only_last = f"steps_per_epoch={steps}"
        result = glraster.train(
            catalog,
            run,
            recipe=options.recipe,
            settings=(*options.settings, only_last),
            arch=options.arch,
            init=options.init,
            bfloat16=options.bfloat16,
            resume=run.exists(),
        )
        names = [c.name for c in load_catalog(catalog).classes]
        known.write_text(json.dumps({**dict(zip(names, result.best.iou, strict=True)), "mIoU": result.best.miou}))
    scores: dict[str, float | None] = json.loads(known.read_text())
    return scores


def row(name: str, scores: Sequence[float | None]) -> str:
    """One line of the table."""
    return f"| {name} | " + " | ".join("-" if value is None else f"{value:.3f}" for value in scores) + " |"


def table(results: dict[str, dict[str, float | None]]) -> str:
    """Scores of all scenes, their mean and their standard deviation."""
    names = list(next(iter(results.values())))
    columns = [[value for scores in results.values() if (value := scores[name]) is not None] for name in names]
    lines = [f"| left out | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [row(scene, [scores[name] for name in names]) for scene, scores in results.items()]
    lines.append(row("mean", [statistics.fmean(column) if column else None for column in columns]))
    lines.append(row("spread", [statistics.pstdev(column) if column else None for column in columns]))
    return "\n".join(lines)


def main() -> None:
    """Train and score every fold, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--of", default="*", metavar="GLOB", help="images that are left out in turn, by name")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--arch")
    parser.add_argument("--init")
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    steps = choose_recipe(options.recipe, options.settings).steps
    if steps is None:
        parser.error("the recipe trains by epochs; add --set steps=N")
    catalog = load_catalog(options.catalog)
    options.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for pair in (*catalog.train, *catalog.val):
        name = Path(pair.image).stem
        if fnmatch.fnmatch(Path(pair.image).name, options.of):
            results[name] = score(fold(catalog, pair, options.output), options.output / name, options, steps)
            print(row(name, list(results[name].values())), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
