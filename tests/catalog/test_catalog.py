"""A catalog file says what it says, or tells all that is wrong with it at once, each thing with its place."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from glraster.catalog import IGNORE, Catalog, LabelEncoding, Pair, load_catalog, write_catalog
from glraster.catalog.document import DEEPEST, LARGEST_BYTES
from glraster.config import LandClass
from glraster.errors import CatalogError, OutputError

HEAD = """\
name: town
classes:
  - {id: 7, name: land, color: [10, 200, 30]}
  - {id: 2, name: water, color: [0, 0, 255]}
bands: 3
labels: {encoding: index}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def with_splits(splits: str, head: str = HEAD) -> str:
    return f"{head}splits: {splits}\n"


def refused(folder: Path, text: str, match: str) -> CatalogError:
    with pytest.raises(CatalogError, match=match) as caught:
        load_catalog(write(folder, text))
    return caught.value


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


FULL = """\
name: town
licence: CC0-1.0
root: data
classes:
  - {id: 7, name: land, color: [10, 200, 30]}
  - {id: 2, name: water, color: [0, 0, 255], in_mean: false}
  - {id: 4, name: cloud, color: [255, 255, 255], ignore: true}
ignore: [9, 255]
bands: [4, 3, 2]
gsd_m: 0.5
context_px: 1024
labels: {encoding: index, values: {10: 7, 20: 2, 30: 4}}
splits:
  train: [{image: a.tif, label: a_label.tif, window: [0, 0, 50, 60]}]
  val: [{image: a.tif, label: a_label.tif, window: [50, 0, 50, 60]}]
  test: [{image: "s3://bucket/b.tif", label: /elsewhere/b.png}]
"""


def test_every_key_arrives(tmp_path: Path) -> None:
    root = str(tmp_path / "data")
    image, label = f"{root}/a.tif", f"{root}/a_label.tif"
    assert load_catalog(write(tmp_path, FULL)) == Catalog(
        name="town",
        licence="CC0-1.0",
        root=root,
        classes=(LandClass(7, "land", (10, 200, 30)), LandClass(2, "water", (0, 0, 255))),
        ignored=(LandClass(4, "cloud", (255, 255, 255)),),
        ignore=(9, 255),
        left_out_of_mean=(2,),
        bands=3,
        indexes=(4, 3, 2),
        gsd_m=0.5,
        context_px=1024,
        labels=LabelEncoding("index", values=((10, 7), (20, 2), (30, 4))),
        train=(Pair(image, label, (0, 0, 50, 60)),),
        val=(Pair(image, label, (50, 0, 50, 60)),),
        test=(Pair("s3://bucket/b.tif", "/elsewhere/b.png"),),
    )


def test_label_meanings_are_positions_not_ids(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, FULL))
    assert catalog.label_meanings() == {10: 0, 20: 1, 30: IGNORE, 9: IGNORE, 255: IGNORE}
    assert catalog.in_mean == (True, False)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, FULL))
    for folder in (tmp_path, tmp_path / "data", tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        copy = folder / "copy.yaml"
        write_catalog(catalog, copy)
        assert load_catalog(copy) == catalog
    assert "root: data" in (tmp_path / "copy.yaml").read_text()


def test_a_vector_catalog_is_read_back(tmp_path: Path) -> None:
    vector = LabelEncoding("vector", (("W", 2), ("none", 7)), column="kind", layer="cover", background=7)
    known = load_catalog(write(tmp_path, FULL))
    catalog = Catalog("v", known.classes, 1, vector, train=(Pair("/a.tif", "/a.gpkg"),), root="/", ignore=("?",))
    write_catalog(catalog, tmp_path / "vector.yaml")
    assert load_catalog(tmp_path / "vector.yaml") == catalog


def test_a_catalog_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    with pytest.raises(OutputError, match=r"exists; use --overwrite"):
        write_catalog(load_catalog(path), path)
    write_catalog(load_catalog(path), path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["catalog.yaml"]


def test_the_hash_is_of_content_and_sizes_wherever_it_lies(tmp_path: Path) -> None:
    hashes = []
    for folder, size in ((tmp_path / "one", 5), (tmp_path / "two", 5), (tmp_path / "three", 6)):
        touch(folder, "data/a.tif")
        (folder / "data/a.tif").write_bytes(b"x" * size)
        hashes.append(load_catalog(write(folder, FULL)).content_hash)
    assert hashes[0] == hashes[1] != hashes[2]
    assert re.fullmatch(r"[0-9a-f]{16}", hashes[0])
    other = load_catalog(write(tmp_path / "one", FULL.replace("gsd_m: 0.5", "gsd_m: 0.6")))
    assert other.content_hash != hashes[0]


@pytest.mark.parametrize(
    ("root", "value", "expected"),
    [
        ("${GLRASTER_TEST_DATA}/x", "/data", "/data/x"),
        ("${GLRASTER_TEST_DATA:-../other}", None, "{parent}/other"),
        ("${GLRASTER_TEST_DATA:-../other}", "/data", "/data"),
        ("s3://bucket/${GLRASTER_TEST_DATA:-x}", None, "s3://bucket/x"),
    ],
)
def test_root_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, value: str | None, expected: str
) -> None:
    monkeypatch.delenv("GLRASTER_TEST_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("GLRASTER_TEST_DATA", value)
    catalog = load_catalog(write(tmp_path, f"root: {root}\n" + with_splits("{val: [{image: a.tif, label: b.tif}]}")))
    expected = expected.format(parent=tmp_path.parent)
    assert (catalog.root, catalog.val[0].image) == (expected, f"{expected}/a.tif")


def test_globs_pair_by_their_wildcards_in_the_order_of_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *(f"x/tile{i}_rgb.tif" for i in (1, 2, 10)), *(f"y/{i}.png" for i in (1, 2, 10, 11)))
    catalog = load_catalog(write(tmp_path, with_splits('{train: {images: "x/tile*_rgb.tif", labels: "y/*.png"}}')))
    assert [(Path(p.image).name, Path(p.label).name) for p in catalog.train] == [
        (f"tile{i}_rgb.tif", f"{i}.png") for i in (1, 2, 10)
    ]


def test_globs_pair_across_folders_and_character_sets(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/s1.tif", "s2.tif", "s3.tif", "m/a/b/s1.png", "m/s2.png", "m/s3.png")
    catalog = load_catalog(
        write(tmp_path, with_splits('{train: [{images: "**/s[!3].tif", labels: "m/**/s[!3].png"}]}'))
    )
    assert [Path(p.label).relative_to(tmp_path).as_posix() for p in catalog.train] == ["m/a/b/s1.png", "m/s2.png"]


def test_one_vector_label_may_serve_all_images(tmp_path: Path) -> None:
    touch(tmp_path, "a1.tif", "a2.tif", "all.gpkg")
    head = HEAD.replace("index", "vector, column: kind")
    catalog = load_catalog(write(tmp_path, with_splits('{train: [{images: "a*.tif", labels: all.gpkg}]}', head)))
    assert {Path(p.label).name for p in catalog.train} == {"all.gpkg"}


PROBLEMS = {
    "no name": (HEAD.replace("name: town\n", ""), r"lacks the key name"),
    "name": (HEAD.replace("town", "12"), r"line 1, name: is 12, not text; put it in quotes"),
    "a word that YAML takes for false": (HEAD.replace("name: water", "name: no"), r"classes\[1\].name: is False"),
    "key": (HEAD + "context: 3\n", r"line 7, context: is no key of a catalog; did you mean context_px\?"),
    "unlike any key": (HEAD + "zzz: 3\n", r"zzz: is no key of a catalog; the keys here are name, classes"),
    "twice": (HEAD + "bands: 4\n", r"line 7, bands: is given twice; keep one"),
    "id": (HEAD.replace("id: 2", "id: 255"), r"classes\[1\].id: is 255, not a whole number from 0 to 254"),
    "same id": (HEAD.replace("id: 2", "id: 7"), r"line 4, classes\[1\]: id 7 is given to 2 classes"),
    "same name": (HEAD.replace("water", "land"), r"classes\[1\]: name 'land' is given to 2 classes"),
    "colour": (HEAD.replace("0, 0, 255", "0, 0, 256"), r"classes\[1\].color\[2\]: is 256, not a whole number from 0"),
    "colour parts": (HEAD.replace("0, 0, 255", "0, 255"), r"classes\[1\].color: has 2 parts, not red, green and blue"),
    "one class": (HEAD.replace("255]", "255], ignore: true"), r"line 3, classes: has fewer than two classes to learn"),
    "no mean": (
        HEAD.replace("30]", "30], in_mean: false").replace("255]", "255], in_mean: false"),
        r"classes: leaves every class out of the mean",
    ),
    "bands": (HEAD.replace("bands: 3", "bands: [0]"), r"bands\[0\]: is 0, not a whole number of 1 or more"),
    "no bands": (HEAD.replace("bands: 3", "bands: []"), r"bands: is empty; name the bands"),
    "gsd": (HEAD + "gsd_m: -1\n", r"gsd_m: is -1, not a positive number"),
    "context": (HEAD + "context_px: true\n", r"context_px: is True, not a whole number of 1 or more"),
    "variable": (HEAD + "root: ${GLRASTER_NOT_SET}/x\n", r"environment variable GLRASTER_NOT_SET is not set"),
    "reference": (HEAD + "root: ${half\n", r"has a reference that is neither"),
    "encoding": (HEAD.replace("index", "color"), r"labels.encoding: is 'color', not one of index, rgb, binary, vector"),
    "binary": (HEAD.replace("index", "binary"), r"labels: is binary: 0 is class id 0 and 255 class id 1"),
    "no column": (HEAD.replace("index", "vector"), r"labels: lacks the key column"),
    "column": (HEAD.replace("index", "rgb, column: a"), r"labels.column: is for vector labels, not for rgb"),
    "values": (
        HEAD.replace("index", "index, values: {1: 3}"),
        r"labels.values.*: is 3, which is no class id; they are 7",
    ),
    "background": (
        HEAD.replace("index", "vector, column: a, background: 1"),
        r"labels.background: is 1, which is no class id",
    ),
    "like colours": (
        HEAD.replace("index", "rgb").replace("0, 0, 255", "90, 150, 0"),
        r"classes\[1\]: has the colour of land once channels are thresholded at 128",
    ),
    "ignored class": (HEAD + "ignore: [2]\n", r"ignore\[0\]: 2 is the label value of a class; give that class"),
    "ignored rgb": (HEAD.replace("index", "rgb") + "ignore: [2]\n", r"ignore: lists label values, and rgb labels have"),
}


@pytest.mark.parametrize(("head", "match"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_problem_is_told_with_its_place(tmp_path: Path, head: str, match: str) -> None:
    error = refused(tmp_path, with_splits("{train: [{image: a.tif, label: b.tif}]}", head), match)
    assert len(error.problems) == 1
    assert str(error).startswith(str(tmp_path / "catalog.yaml"))


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        ("{trains: []}", r"splits.trains: is no key of a catalog; did you mean train\?"),
        ("{train: [a.tif]}", r"splits.train\[0\]: is 'a.tif', not a mapping"),
        ("{train: [{image: a.tif}]}", r"splits.train\[0\]: lacks the key label"),
        ("{train: [{image: a.tif, lable: b}]}", r"lable: is no key of a catalog; did you mean label\?"),
        ("{train: [{image: a.tif, label: b, window: [0, 0, 5]}]}", r"window: has 3 numbers, not row, column, height"),
        ("{train: [{image: a.tif, label: b, window: [0, 0, 0, 5]}]}", r"window\[2\]: is 0, not a whole number of 1"),
        ('{train: {images: "q*.tif", labels: "q*.png"}}', r"splits.train: 'q\*.tif' matches no file in /"),
        ('{train: {images: "a*.tif", labels: "a.png"}}', r"'a\*.tif' and 'a.png' have different wildcards"),
        ('{train: {images: "a*.tif", labels: "m*.png"}}', r"a1.tif has no label; .*m1.png does not exist"),
        ('{train: {images: "s3://x/a*.tif", labels: "m*.png"}}', r"a glob needs a local folder"),
    ],
)
def test_a_wrong_split_is_told(tmp_path: Path, splits: str, match: str) -> None:
    touch(tmp_path, "a1.tif", "a2.tif", "m2.png")
    refused(tmp_path, with_splits(splits), match)


@pytest.mark.parametrize(
    "second",
    [
        "{image: a.tif, label: b.tif}",
        "{image: x/../a.tif, label: c.tif}",
        "{image: link.tif, label: c.tif}",
        "{image: a.tif, label: b.tif, window: [39, 59, 10, 10]}",
    ],
)
def test_no_pixel_is_in_two_splits(tmp_path: Path, second: str) -> None:
    (tmp_path / "link.tif").symlink_to("a.tif")
    first = "{image: a.tif, label: b.tif, window: [0, 0, 40, 60]}"
    refused(tmp_path, with_splits(f"{{train: [{first}], val: [{second}]}}"), r"splits.val\[0\]: .* is in train too")


def test_disjoint_windows_of_one_scene_may_be_in_two_splits(tmp_path: Path) -> None:
    windows = [f"{{image: a.tif, label: b.tif, window: {w}}}" for w in ("[0, 0, 40, 60]", "[40, 0, 9, 9]")]
    catalog = load_catalog(write(tmp_path, with_splits(f"{{train: [{windows[0]}], val: [{windows[1]}]}}")))
    assert (len(catalog.train), len(catalog.val)) == (1, 1)


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = with_splits("{train: [{image: a.tif}], val: 3}", HEAD.replace("town", "1").replace("id: 7", "id: x"))
    error = refused(tmp_path, text, r"4 problems")
    lines = [int(re.match(r"line (\d+)", problem)[1]) for problem in error.problems]  # type: ignore[index]
    assert lines == [1, 3, 7, 7]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"line 1: is empty, not a mapping"),
        ("- a", r"line 1: is a list, not a mapping"),
        ("name: [a", r"is not YAML that a catalog may hold: line"),
        ("name: &x a\nlicence: *x", r"line 1: anchors and aliases are not allowed"),
        ("name: *x", r"aliases are not allowed"),
        ("name: !!python/object:os.system x", r"could not determine a constructor"),
        ("name: 2024-13-45", r"line 1: '2024-13-45' is no value of its kind"),
        ("[a]: b", r"line 1: a key must be one plain value"),
        ("name: a\n---\nname: b", r"line 2: a second document starts"),
        ("name: " + "[" * (DEEPEST + 5), r"more than 12 levels deep"),
        ("name: \x07", r"is not YAML that a catalog may hold"),
    ],
)
def test_what_is_no_catalog_is_refused(tmp_path: Path, text: str, match: str) -> None:
    refused(tmp_path, text, match)


def test_large_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    with pytest.raises(CatalogError, match=r"cannot be read: No such file"):
        load_catalog(path)
    path.write_bytes(b"II*\x00\xff\xfe")
    with pytest.raises(CatalogError, match=r"is not UTF-8 text"):
        load_catalog(path)
    path.write_bytes(b" " * (LARGEST_BYTES + 1))
    with pytest.raises(CatalogError, match=r"is larger than 10 MB"):
        load_catalog(path)


@pytest.mark.parametrize("name", ["dubai", "banepa", "buildings"])
def test_the_examples_load(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    touch(tmp_path, *(f"dubai/tile{i}_{kind}.tif" for i in (1, 3, 5, 6, 7, 8) for kind in ("rgb", "label")))
    monkeypatch.setenv("GLRASTER_DATA", str(tmp_path))
    catalog = load_catalog(Path(__file__).parents[2] / "examples" / f"{name}.yaml")
    assert catalog.train
    assert catalog.val
