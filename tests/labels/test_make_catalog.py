"""Public data sets, and any folder, become catalogs: tried on miniatures in their exact layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from conftest import Outcome
from rasters import landscape, write_raster

from glraster.catalog import Catalog, Pair, load_catalog
from glraster.catalog.layouts import DEEPGLOBE_SHARES, seeded_split
from glraster.config import LandClass
from glraster.labels.check import check_catalog
from glraster.model.published import DEEPGLOBE, INRIA
from glraster.raster.writer import classes_json

Run = Callable[..., Outcome]

PLAIN: dict[str, Any] = {"crs": None, "transform": None}


def make(run: Run, *arguments: object) -> Catalog:
    outcome = run("catalog", *arguments)
    assert outcome.code == 0, outcome.err
    return load_catalog(Path(outcome.out.rsplit(":", 3)[0]))


def refused(run: Run, *arguments: object) -> str:
    outcome = run("catalog", *arguments)
    assert outcome.code == 1
    return outcome.err


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [Path(pair.image).name for pair in pairs]


def bands_of(colors: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.moveaxis(colors.astype(np.uint8), -1, 0))


def write_deepglobe(folder: Path, ids: range) -> None:
    folder.mkdir(parents=True)
    palette = np.array([c.color for c in DEEPGLOBE])
    label = bands_of(palette[np.arange(7).repeat(4)[None].repeat(28, axis=0)])
    # a mask that was resampled or compressed once has not quite its colours
    label = np.where(label > 128, label - 40, label + 40).astype(np.uint8)
    for i in ids:
        write_raster(folder / f"{i}_sat.jpg", landscape(28, 28), driver="JPEG", **PLAIN)
        write_raster(folder / f"{i}_mask.png", label, driver="PNG", **PLAIN)


@pytest.mark.parametrize("folder", ["land-train", "train", "."])
def test_deepglobe(tmp_path: Path, run: Run, folder: str) -> None:
    write_deepglobe(tmp_path / "deepglobe" / folder, range(100, 108))
    catalog = make(run, "deepglobe", tmp_path / "deepglobe" / ".." / "deepglobe")
    written = tmp_path / "deepglobe" / "catalog.yaml"
    assert str(tmp_path) not in written.read_text()
    assert (catalog.classes, catalog.labels.encoding, catalog.bands) == (DEEPGLOBE, "rgb", 3)
    assert (catalog.gsd_m, catalog.context_px) == (0.5, 2448)
    assert catalog.in_mean == (False, True, True, True, True, True, True)
    assert [len(pairs) for pairs in catalog.splits.values()] == [5, 2, 1]
    report = check_catalog(catalog)
    assert report.problems == ()
    assert [c.pixels for c in report.splits[2].classes] == [4 * 28] * 7


def test_deepglobe_by_the_lists_of_the_paper(tmp_path: Path, run: Run) -> None:
    write_deepglobe(tmp_path / "land-train", range(5))
    lists = {"train": "0_sat.jpg\n3_sat.jpg\n", "val": "1\n", "test": "4_mask.png\n2\n"}
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    catalog = make(run, "deepglobe", tmp_path, "--split-lists", tmp_path)
    assert [names(pairs) for pairs in catalog.splits.values()] == [
        ["0_sat.jpg", "3_sat.jpg"],
        ["1_sat.jpg"],
        ["4_sat.jpg", "2_sat.jpg"],
    ]
    files = [argument for name in lists for argument in ("--split-lists", tmp_path / f"{name}.txt")]
    assert make(run, "deepglobe", tmp_path, *files, "-o", tmp_path / "three.yaml") == catalog


def test_wrong_split_lists_are_told_whole(tmp_path: Path, run: Run) -> None:
    write_deepglobe(tmp_path / "land-train", range(3))
    for name, text in {"train": "0 1 77", "val": "1"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    told = refused(run, "deepglobe", tmp_path, "--split-lists", tmp_path)
    assert "train.txt: 77 is no scene of the data set" in told
    assert "val.txt: 1 is in train.txt too; a scene belongs to one split" in told
    assert "test.txt: cannot be read" in told
    told = refused(run, "deepglobe", tmp_path, "--split-lists", tmp_path / "train.txt")
    assert "1 split lists given; give a folder, or the lists of train, val and test" in told


def test_deepglobe_names_every_scene_without_mask(tmp_path: Path, run: Run) -> None:
    write_deepglobe(tmp_path / "land-train", range(3))
    for i in (0, 2):
        (tmp_path / f"land-train/{i}_mask.png").unlink()
    told = refused(run, "deepglobe", tmp_path)
    assert all(f"{i}_sat.jpg has no label" in told for i in (0, 2))
    assert "1_sat.jpg has no label" not in told


def test_the_seeded_split_has_the_proportions_of_the_paper() -> None:
    pairs = {str(i): Pair(f"/{i}.jpg", f"/{i}.png") for i in range(803)}
    splits = seeded_split(pairs, DEEPGLOBE_SHARES, 0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [454, 207, 142]
    assert {pair for split in splits.values() for pair in split} == set(pairs.values())  # type: ignore[attr-defined]
    assert splits == seeded_split(dict(reversed(pairs.items())), DEEPGLOBE_SHARES, 0)
    assert splits != seeded_split(pairs, DEEPGLOBE_SHARES, 1)


def test_inria(tmp_path: Path, run: Run) -> None:
    train = tmp_path / "AerialImageDataset/train"
    for folder in ("images", "gt"):
        (train / folder).mkdir(parents=True)
    for name in (*(f"austin{i}" for i in (1, 5, 6, 36)), "tyrol-w2", "tyrol-w10"):
        write_raster(train / "images" / f"{name}.tif", landscape(20, 30))
        gt = np.zeros((1, 20, 30), np.uint8)
        gt[:, :5] = 255
        write_raster(train / "gt" / f"{name}.tif", gt)
    catalog = make(run, "inria", tmp_path, "-o", tmp_path / "inria.yaml")
    assert (catalog.classes, catalog.labels.encoding) == (INRIA, "binary")
    assert (catalog.gsd_m, catalog.context_px) == (0.3, 5000)
    assert names(catalog.train) == ["austin6.tif", "austin36.tif", "tyrol-w10.tif"]
    assert names(catalog.val) == ["austin1.tif", "austin5.tif", "tyrol-w2.tif"]
    report = check_catalog(catalog)
    assert (report.problems, [c.pixels for c in report.splits[0].classes]) == ((), [3 * 450, 3 * 150])
    (train / "gt/austin5.tif").unlink()
    assert "austin5.tif has no label" in refused(run, "inria", tmp_path)


@pytest.mark.parametrize("name", ["deepglobe", "inria"])
def test_another_folder_is_no_data_set(tmp_path: Path, run: Run, name: str) -> None:
    assert "give the folder" in refused(run, name, tmp_path)
    assert "is no folder" in refused(run, name, tmp_path / "absent")


def write_folder(folder: Path, label: npt.NDArray[Any], count: int = 5, bands: int = 3, **profile: Any) -> None:
    for i in range(count):
        write_raster(folder / f"t{i}_rgb.tif", landscape(*label.shape[1:], bands))
        write_raster(folder / f"t{i}_label.tif", label, **profile)


GLOBS = ("--images", "t*_rgb.tif", "--labels", "t*_label.tif")


def stripes(*values: int) -> npt.NDArray[np.uint8]:
    return np.array(values, np.uint8).repeat(10)[None, :, None].repeat(30, axis=2)


def test_a_folder_is_divided_by_whole_scenes(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(3, 1, 255))
    catalog = make(run, "folder", tmp_path, *GLOBS)
    assert (len(catalog.train), len(catalog.val), len(catalog.test)) == (4, 1, 0)
    assert [(c.id, c.name) for c in catalog.classes] == [(1, "class_1"), (3, "class_3")]
    assert (catalog.bands, catalog.context_px, catalog.gsd_m, catalog.ignore) == (3, 30, 0.5002, (255,))
    assert check_catalog(catalog).problems == ()
    half = make(run, "folder", tmp_path, *GLOBS, "--val-share", 0.5, "--seed", 3, "--overwrite")
    assert len(half.val) == 2


def test_class_names_come_from_the_tag_of_a_mask(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(3, 1))
    declared = (LandClass(3, "roof", (200, 0, 0)), LandClass(1, "lawn", (0, 200, 0)), LandClass(8, "sea", (0, 0, 9)))
    with rasterio.open(tmp_path / "t0_label.tif", "r+") as mask:
        mask.update_tags(GLRASTER_CLASSES=classes_json(declared))
    catalog = make(run, "folder", tmp_path, *GLOBS)
    assert catalog.classes == tuple(sorted(declared, key=lambda c: c.id))


def test_class_colours_come_from_the_colour_table(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(3, 1))
    with rasterio.open(tmp_path / "t2_label.tif", "r+") as mask:
        mask.write_colormap(1, {1: (1, 2, 3), 3: (4, 5, 6)})
    catalog = make(run, "folder", tmp_path, *GLOBS)
    assert [c.color for c in catalog.classes] == [(1, 2, 3), (4, 5, 6)]


def test_named_classes_and_binary_labels(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(0, 255))
    catalog = make(run, "folder", tmp_path, *GLOBS, "--classes", "0=other,1=roof", "-o", tmp_path / "a.yaml")
    assert [(c.id, c.name) for c in catalog.classes] == [(0, "other"), (1, "roof")]
    assert catalog.labels.encoding == "binary"
    unnamed = make(run, "folder", tmp_path, *GLOBS, "-o", tmp_path / "b.yaml")
    assert [c.name for c in unnamed.classes] == ["background", "foreground"]
    assert run("catalog", "folder", tmp_path, *GLOBS, "--classes", "1:roof").code == 2
    assert run("catalog", "folder", tmp_path, *GLOBS, "--classes", "1=a,1=b").code == 2


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (stripes(4, 4), "the labels have one class, class_4"),
        (landscape(20, 30, 3), "has 3 bands, so it is a coloured mask"),
        (landscape(90, 90, 1), "has more than 64 values, so it holds no class ids"),
        (stripes(1, 2).astype(np.int16) * -1, "has the value -2, so it holds no class ids"),
    ],
)
def test_labels_that_hold_no_classes_are_refused(tmp_path: Path, run: Run, label: npt.NDArray[Any], match: str) -> None:
    write_folder(tmp_path, label, count=2)
    assert match in refused(run, "folder", tmp_path, *GLOBS)
    assert not (tmp_path / "catalog.yaml").exists()


def test_one_scene_cannot_be_divided(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(1, 2), count=1)
    assert "one scene, which cannot be divided" in refused(run, "folder", tmp_path, *GLOBS)
    assert "matches no file" in refused(run, "folder", tmp_path, "--images", "x*", "--labels", "y*")
    assert run("catalog", "folder", tmp_path, *GLOBS, "--val-share", 1).code == 2


def test_a_catalog_is_never_replaced_unasked(tmp_path: Path, run: Run) -> None:
    write_folder(tmp_path, stripes(1, 2), count=2)
    (tmp_path / "catalog.yaml").write_text("mine")
    assert "exists; use --overwrite to replace it" in refused(run, "folder", tmp_path, *GLOBS)
    assert "its folder does not exist" in refused(run, "folder", tmp_path, *GLOBS, "-o", tmp_path / "x/y.yaml")
    assert (tmp_path / "catalog.yaml").read_text() == "mine"
    make(run, "folder", tmp_path, *GLOBS, "--overwrite")
