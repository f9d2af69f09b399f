"""`check` opens every file, counts every class and tells every problem."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from conftest import Outcome
from rasters import HALF_METRE, landscape, write_raster

from glraster.catalog import load_catalog
from glraster.errors import CatalogError
from glraster.labels.check import CatalogReport, check_catalog

Run = Callable[..., Outcome]
Pixels = npt.NDArray[Any]

CATALOG = """\
name: town
classes:
  - {id: 7, name: land, color: [10, 200, 30]}
  - {id: 2, name: water, color: [0, 0, 255]}
ignore: [9]
bands: 3
labels: {encoding: index}
splits:
  train: {images: "?_rgb.tif", labels: "?_label.tif"}
  val: [{image: val_rgb.tif, label: val_label.tif}]
"""


LISTED = "[{image: a_rgb.tif, label: a_label.tif}, {image: b_rgb.tif, label: b_label.tif}]"


def half_water(height: int = 20, width: int = 30) -> Pixels:
    label = np.full((1, height, width), 7, np.uint8)
    label[:, height // 2 :] = 2
    label[:, 0, :5] = 9
    return label


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """A sound catalog of two training scenes and one for validation."""
    for name, size in (("a", (20, 30)), ("b", (40, 30)), ("val", (20, 30))):
        write_raster(tmp_path / f"{name}_rgb.tif", landscape(*size))
        write_raster(tmp_path / f"{name}_label.tif", half_water(*size))
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    return path


def check(path: Path, old: str = "", new: str = "") -> CatalogReport:
    path.write_text(CATALOG.replace(old, new))
    return check_catalog(load_catalog(path))


def test_scenes_sizes_and_classes_are_counted(town: Path) -> None:
    report = check(town)
    train, val, test = report.splits
    assert (report.problems, report.notes) == ((), ())
    assert [(s.height, s.width, s.pixels, s.ignored_pixels) for s in train.scenes] == [
        (20, 30, (295, 300), 5),
        (40, 30, (595, 600), 5),
    ]
    assert [(c.id, c.name, c.pixels) for c in train.classes] == [(7, "land", 890), (2, "water", 900)]
    assert train.classes[0].share == pytest.approx(890 / 1790)
    assert (train.ignored_pixels, val.ignored_pixels, len(test.scenes)) == (10, 5, 0)
    report.require_sound("catalog.yaml")


def test_only_the_window_of_a_pair_is_counted(town: Path) -> None:
    report = check(
        town,
        '{images: "?_rgb.tif", labels: "?_label.tif"}',
        "[{image: a_rgb.tif, label: a_label.tif, window: [8, 10, 4, 20]}]",
    )
    assert report.splits[0].scenes[0].pixels == (40, 40)


def write_label(town: Path, pixels: Pixels, **profile: Any) -> None:
    write_raster(town.with_name("b_label.tif"), pixels, **profile)


def write_image(town: Path, pixels: Pixels, **profile: Any) -> None:
    write_raster(town.with_name("b_rgb.tif"), pixels, **profile)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def compressed(town: Path, name: str, bands: int) -> None:
    path = write_raster(town.with_name(name), landscape(600, 600, bands), compress="deflate", tiled=True)
    truncate(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "label size": (lambda t: write_label(t, half_water()), r"b_label.tif: is 30 x 20 px, its image .* is 30 x 40 px"),
    "label grid": (
        lambda t: write_label(t, half_water(40, 30), transform=HALF_METRE @ Affine.translation(5, 0)),
        r"b_label.tif: lies 5 px off its image",
    ),
    "label CRS": (lambda t: write_label(t, half_water(40, 30), crs="EPSG:32634"), r"b_label.tif: is in EPSG:32634"),
    "label value": (
        lambda t: write_label(t, half_water(40, 30) + np.uint8(1)),
        r"b_label.tif: has label values that are no class: 3 \(600 px\), 8 \(595 px\), 10 \(5 px\); add them to",
    ),
    "coloured label": (
        lambda t: write_label(t, landscape(40, 30)),
        r"b_label.tif: has 3 bands, so it is a coloured mask and not index; use encoding: rgb",
    ),
    "label is text": (
        lambda t: t.with_name("b_label.tif").write_text("x"),
        r"b_label.tif: cannot be opened as a raster",
    ),
    "label is cut off": (lambda t: compressed(t, "b_label.tif", 1), r"b_label.tif: "),
    "bands": (
        lambda t: write_image(t, landscape(40, 30, 2)),
        r"b_rgb.tif: has 2 bands without alpha, the model needs 3",
    ),
    "alpha is no band": (
        lambda t: write_image(t, landscape(40, 30, 3), photometric="MINISBLACK", alpha="YES"),
        r"b_rgb.tif: has 2 bands without alpha",
    ),
    "image is text": (lambda t: t.with_name("b_rgb.tif").write_text("x"), r"b_rgb.tif: cannot be opened as a raster"),
    "image is gone": (lambda t: t.with_name("val_rgb.tif").unlink(), r"val_rgb.tif: does not exist"),
}


@pytest.mark.parametrize(("spoil", "match"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_told_and_the_rest_is_counted(town: Path, spoil: Callable[[Path], object], match: str) -> None:
    spoil(town)
    report = check(town)
    assert len(report.problems) == 1
    assert report.splits[0].scenes[0].pixels == (295, 300)
    with pytest.raises(CatalogError, match=match):
        report.require_sound("catalog.yaml")


def test_a_damaged_end_of_an_image_is_found(town: Path) -> None:
    write_raster(town.with_name("b_label.tif"), half_water(600, 600))
    compressed(town, "b_rgb.tif", 3)
    assert any("b_rgb.tif: cannot be" in problem for problem in check(town).problems)


def test_a_missing_image_and_its_unreadable_label_are_both_told(town: Path) -> None:
    town.with_name("b_rgb.tif").unlink()
    town.with_name("b_label.tif").write_text("no raster")
    image, label = check(town, '{images: "?_rgb.tif", labels: "?_label.tif"}', LISTED).problems
    assert image.endswith("b_rgb.tif: does not exist; correct the catalog or its root")
    assert "b_label.tif: cannot be opened as a raster" in label


def test_every_missing_file_is_listed_once(town: Path) -> None:
    listed = "[{image: x.tif, label: y.tif}, {image: z.tif, label: a_label.tif}, {image: a_rgb.tif, label: y.tif}]"
    report = check(town, '{images: "?_rgb.tif", labels: "?_label.tif"}', listed)
    assert [Path(problem.partition(":")[0]).name for problem in report.problems] == ["x.tif", "y.tif", "z.tif"]
    assert all("does not exist" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("[{image: val_rgb.tif, label: val_label.tif}]", "[]", r"splits.val: is empty; training needs scenes"),
        (
            "  - {id: 2",
            "  - {id: 3, name: x, color: [1, 1, 1]}\n  - {ignore: true, id: 2",
            r"train: has pixels of one class",
        ),
        ("ignore: [9]", "ignore: [9, 2, 7]", r"has no pixel of any class"),
        ("bands: 3", "bands: [4]", r"_rgb.tif: has no band 4; its bands are 1 to 3"),
    ],
)
def test_what_a_split_lacks_is_told(town: Path, old: str, new: str, match: str) -> None:
    if "9, 2, 7" in new:
        old, new = "{encoding: index}\n", "{encoding: index, values: {1: 7, 3: 2}}\n"
        town.write_text(CATALOG.replace("ignore: [9]", "ignore: [9, 2, 7]").replace(old, new))
        report = check_catalog(load_catalog(town))
    else:
        report = check(town, old, new)
    with pytest.raises(CatalogError, match=match):
        report.require_sound("catalog.yaml")


def test_a_class_without_pixels_is_a_note(town: Path) -> None:
    report = check(town, "ignore: [9]", "  - {id: 3, name: snow, color: [1, 1, 1]}\nignore: [9]")
    assert (report.problems, report.notes[0]) == ((), "splits.train: has no pixel of snow")


def test_the_command_prints_the_counts(town: Path, run: Run) -> None:
    outcome = run("catalog", "check", town)
    assert (outcome.code, outcome.err) == (0, "")
    assert "train: 2 scenes, 30 x 20 to 30 x 40 px" in outcome.out
    assert "    2  water   50.3 %           900 px" in outcome.out


def test_the_command_prints_json_and_ends_with_1(town: Path, run: Run) -> None:
    town.with_name("val_label.tif").unlink()
    outcome = run("catalog", "check", town, "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 1
    assert report["splits"][0]["classes"][1] == {"id": 2, "name": "water", "pixels": 900, "share": 900 / 1790}
    assert len(report["problems"]) == 1
    assert outcome.err.startswith(f"glraster: error: {town}: {town.with_name('val_label.tif')}: does not exist")
