"""`glraster report` and `glraster preview`: what goes into the page, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from maps import CLASSES, IDS, disturbed, patches, write_map, write_shapes, write_truth
from PIL import Image
from rasters import HALF_METRE, hole, landscape, write_raster

from glraster.config import LandClass, class_color

H, W = 260, 380


@pytest.fixture
def mask(tmp_path):
    ids = disturbed(patches(H, W, side=60), 0.05)
    ids[:30, :40] = 255
    return write_map(tmp_path / "map.tif", ids)


@pytest.fixture
def reported(run, tmp_path):
    """Write a report and return its text."""

    def call(subject, *arguments):
        outcome = run("report", subject, "-o", tmp_path / "report.html", "--overwrite", *arguments)
        assert outcome.code == 0, outcome.err
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return call


class Words(HTMLParser):
    """The text of a page, without styles and scripts."""

    def __init__(self):
        super().__init__()
        self.text, self._skip = "", False

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self._skip = tag in ("style", "script")

    def handle_endtag(self, tag):  # noqa: ARG002
        self._skip = False

    def handle_data(self, data):
        self.text += "" if self._skip else f" {data}"


def words(page):
    reader = Words()
    reader.feed(page)
    return re.sub(r"[ \n]+", " ", reader.text)


def picture(page, layer):
    """A layer's picture as (height, width, 4)."""
    uri = re.search(rf'data-layer="{layer}"><img src="data:image/[a-z]+;base64,([^"]+)"', page)[1]
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri))).convert("RGBA"))


def test_a_class_without_colour_has_one_colour_everywhere(reported, run, tmp_path):
    """A foreign map with an alpha band: in the report, in the preview, and in the style of its polygons."""
    ids = patches(H, W, side=60, ids=(2, 9, 40))
    valid = hole(H, W)
    pixels = np.stack([ids, np.where(valid, 255, 0).astype(np.uint8)])
    foreign = write_raster(tmp_path / "foreign.tif", pixels, photometric="MINISBLACK", alpha="YES")
    seen = picture(reported(foreign), "map")
    for class_id in (2, 9, 40):
        assert (seen[(ids == class_id) & valid] == (*class_color(class_id), 255)).all()
    assert (seen[~valid][:, 3] == 0).all()
    assert run("preview", foreign, "-o", tmp_path / "preview.png", "--size", W).code == 0
    drawn = {color for _, color in Image.open(tmp_path / "preview.png").convert("RGB").getcolors(2**20)}
    assert run("vectorize", foreign, "-o", tmp_path / "polygons.gpkg").code == 0
    with closing(sqlite3.connect(tmp_path / "polygons.gpkg")) as database:
        (style,) = database.execute("SELECT styleQML FROM layer_styles").fetchone()
    for class_id in (2, 9, 40):
        assert class_color(class_id) in drawn
        assert '"{},{},{},255"'.format(*class_color(class_id)) in style


def test_page_is_one_file_that_names_no_other(mask, reported):
    page = reported(mask)
    assert page.startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"url\(|@import|https?://", page)
    policy = html.unescape(re.search('Content-Security-Policy" content="([^"]+)"', page)[1])
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_map_and_areas_are_those_of_the_pixels(mask, reported):
    page = reported(mask)
    with rasterio.open(mask) as dataset:
        ids = dataset.read(1)
    seen = picture(page, "map")
    for c in CLASSES:
        assert (seen[ids == c.id] == (*c.color, 255)).all()
    assert (seen[ids == 255][:, 3] == 0).all()
    text = words(page)
    for c in CLASSES:
        square_metres = (ids == c.id).sum() * 0.25
        row = re.search(rf"{re.escape(c.name)} ([\d.]+) % ([\d.]+) ([\d\u202f]+)", text.split("Areas")[1])
        assert float(row[1]) == pytest.approx(100 * (ids == c.id).sum() / (ids != 255).sum(), abs=0.06)
        assert float(row[2]) == pytest.approx(square_metres / 1e4, rel=5e-3)
        assert float(row[3].replace("\u202f", "")) == pytest.approx(square_metres, rel=2e-3)


def test_scene_lies_under_the_map_also_where_the_map_is_a_part_of_it(tmp_path, reported):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W))
    part = patches(100, 150)
    mask = write_map(tmp_path / "part.tif", part, transform=HALF_METRE @ Affine.translation(60, 90))
    seen = picture(reported(mask, "--scene", scene), "scene")[..., :3].astype(int)
    expected = landscape(H, W)[:, 90:190, 60:210].transpose(1, 2, 0)
    assert seen.shape == (100, 150, 3)
    assert abs(seen - expected).mean() < 12  # JPEG
    assert abs(seen - landscape(H, W)[:, 91:191, 60:210].transpose(1, 2, 0)).mean() > abs(seen - expected).mean()


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (4, "uint16"), (3, "float32")])
def test_scenes_of_other_kinds_are_shown(bands, dtype, mask, tmp_path, reported):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W, bands, dtype))
    seen = picture(reported(mask, "--scene", scene), "scene")[..., :3].astype(int)
    expected = landscape(H, W, bands, dtype).astype(float)[0]
    assert seen.std() > 30
    assert np.corrcoef(seen[..., 0].ravel(), expected.ravel())[0, 1] > 0.97


def test_differences_and_scores_are_those_of_evaluate(mask, tmp_path, reported, run):
    truth_ids = patches(H, W, side=60)
    truth = write_truth(tmp_path / "truth.tif", truth_ids)
    page = reported(mask, "--truth", truth)
    with rasterio.open(mask) as dataset:
        ids = dataset.read(1)
    seen = picture(page, "errors")
    wrong = (ids != truth_ids) & (ids != 255)
    assert (seen[wrong] == (213, 94, 0, 255)).all()
    assert (seen[~wrong][:, :3] == 255).all()
    scores = json.loads(run("evaluate", mask, truth, "--json").out)
    text = words(page)
    assert f"mIoU {scores['miou']:.3f}" in text
    for entry in scores["classes"]:
        assert f"{entry['name']} {entry['iou']:.3f} {entry['f1']:.3f} {entry['precision']:.3f}" in text
    assert "Worst tiles" in text


def test_a_truth_with_classes_of_its_own_is_shown_with_them(mask, tmp_path, reported):
    with rasterio.open(mask) as dataset:
        ids = dataset.read(1)
    truth = write_truth(tmp_path / "roofs.tif", (ids == 3).astype(np.uint8))
    percent = write_raster(tmp_path / "confidence.tif", np.full((1, H, W), 70, np.uint8), nodata=255)
    classes = ("--classes", "0=something else,1=building & roof", "--others", "something else")
    page = reported(mask, "--truth", truth, "--confidence", percent, *classes)
    seen = picture(page, "truth")
    assert (seen[ids == 3] == (*CLASSES[0].color, 255)).all()
    assert len(np.unique(seen[ids != 3].reshape(-1, 4), axis=0)) == 1
    assert (picture(page, "errors")[..., :3] == 255).all()
    assert "mIoU 1.000" in words(page)


def test_confidence_is_counted_over_all_pixels(mask, tmp_path, reported):
    percent = np.random.default_rng(2).integers(20, 101, (1, H, W), dtype=np.uint8)
    file = write_raster(tmp_path / "confidence.tif", percent, nodata=255)
    text = words(reported(mask, "--confidence", file))
    assert f"{100 * (percent < 50).mean():.1f} % of the pixels have less than 50 % confidence" in text
    assert f"Mean confidence {percent.mean():.0f} %" in text


def test_points_give_estimated_areas(mask, tmp_path, reported):
    with rasterio.open(mask) as dataset:
        ids = dataset.read(1)
    rng = np.random.default_rng(3)
    rows, columns = np.concatenate([rng.permutation(np.argwhere(ids == c))[:40] for c in IDS]).T
    x, y = HALF_METRE @ (columns + 0.5, rows + 0.5)
    file = write_shapes(tmp_path / "p.gpkg", list(shapely.points(x, y)), ids[rows, columns].tolist())
    text = words(reported(mask, "--truth", file))
    assert "Estimated, ha" in text
    assert "Overall accuracy 100.0 %" in text


def test_provenance_has_model_command_and_versions(mask, reported):
    text = words(reported(mask)).split("Provenance")[1]
    assert "0123456789ab" in text
    assert "glraster report" in text or "Command" in text
    assert "GDAL" in text


def test_a_class_name_that_is_no_text_does_not_stop_the_report(tmp_path, reported):
    classes = (LandClass(3, "half \ud800 a character", (200, 30, 30)), *CLASSES[1:])
    page = reported(write_map(tmp_path / "map.tif", patches(90, 120), classes))
    assert "half \ufffd a character" in words(page)


def test_a_map_without_crs_has_areas_in_pixels(tmp_path, reported):
    mask = write_map(tmp_path / "plain.tif", patches(90, 120), crs=None, transform=Affine.identity())
    text = words(reported(mask))
    assert "areas are in pixels" in text
    assert "no CRS: pixel coordinates" in text


def test_a_large_map_is_shrunk_to_a_small_file(tmp_path, reported):
    ids = patches(5000, 6100, side=40)
    mask = write_map(tmp_path / "large.tif", ids, tiled=True, compress="deflate")
    page = reported(mask)
    assert max(picture(page, "map").shape) == 1800
    assert len(page) < 3e6


@pytest.fixture
def training(tmp_path):
    """The folder of a training with two stages."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text('{"batch": 4, "stages": ["global", "full"]}')
    records = []
    for stage in ("global", "full"):
        for step in range(1, 401):
            records.append({"kind": "step", "stage": stage, "step": step, "loss": 2 / step**0.3, "terms": {}})
            if step % 100 == 0:
                iou = [step / 1000, None, 0.5]
                records.append({"kind": "validation", "stage": stage, "step": step, "miou": step / 800, "iou": iou})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"kind": "st')
    return folder


def test_a_training_is_shown_by_its_curves(training, reported):
    page = reported(training)
    text = words(page)
    assert "Best mIoU 0.500" in text
    assert "Steps 800" in text
    assert page.count("<polyline") == 2 + 2 * 3  # losses; mIoU and two classes per stage
    assert "batch 4" in text


def test_a_training_that_failed_or_just_began_can_be_looked_at(training, reported):
    metrics = training / "metrics.jsonl"
    first = '{"kind": "step", "stage": "global", "step": 1, "loss": 2.5, "terms": {}}\n'
    metrics.write_text(first)
    assert "1 step noted" in words(reported(training))
    lost = (
        first.replace("2.5", "NaN") + '{"kind": "validation", "stage": "global", "step": 1, "miou": NaN, "iou": [null]}'
    )
    metrics.write_text(first + lost)
    page = reported(training)
    assert not re.search(r"\bnan\b", page.split("</style>")[1].split("<script")[0], re.IGNORECASE)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("map.tif", "-o", "exists.html"), 1, "use --overwrite"),
        (("map.tif", "-o", "map.tif", "--overwrite"), 2, "is an input"),
        (("map.tif", "-o", "no/where.html"), 1, "create it first"),
        (("absent.tif", "-o", "new.html"), 1, "cannot be opened"),
        (("map.tif", "-o", "new.html", "--scene", "absent.tif"), 1, "cannot be opened"),
        (("map.tif", "-o", "new.html", "--confidence", "scene.tif"), 1, "is no confidence"),
        (("map.tif", "-o", "new.html", "--model", "default"), 1, "did not make"),
        (("runs/first", "-o", "new.html", "--scene", "scene.tif"), 2, "is for a map"),
        (("runs", "-o", "new.html"), 1, "holds no training"),
    ],
    ids=["exists", "input", "folder", "no map", "no scene", "confidence", "model", "training", "no training"],
)
@pytest.mark.usefixtures("mask", "training")
def test_a_wrong_call_writes_nothing(arguments, code, text, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "scene.tif", landscape(H, W))
    (tmp_path / "exists.html").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = run("report", *arguments)
    assert outcome.code == code
    assert text in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_preview_shows_map_and_legend(mask, run, tmp_path):
    outcome = run("preview", mask, "-o", tmp_path / "map.png", "--size", 380)
    assert outcome.code == 0, outcome.err
    seen = np.asarray(Image.open(tmp_path / "map.png"))
    with rasterio.open(mask) as dataset:
        ids = dataset.read(1)
    for c in CLASSES:
        places = (seen == c.color).all(axis=-1)
        share = places[:, : W + 18].sum() / (ids == c.id).sum()
        assert 0.9 < share < 1.05  # a number in a circle lies on some of them
        assert places[:, W + 24 :].any()  # its swatch


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("map.tif", "-o", "map.jpg"), 2, "ends in .png"),
        (("map.tif", "-o", "exists.png"), 1, "use --overwrite"),
        (("map.tif", "-o", "new.png", "--size", "10"), 2, "must lie between"),
        (("absent.tif", "-o", "new.png"), 1, "cannot be opened"),
    ],
)
@pytest.mark.usefixtures("mask")
def test_a_wrong_preview_is_one_line(arguments, code, text, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exists.png").write_text("years of work")
    outcome = run("preview", *arguments)
    assert (outcome.code, len(outcome.err.splitlines())) == (code, 1)
    assert text in outcome.err
    assert not (tmp_path / "new.png").exists()
