"""`glraster evaluate` on two maps: the counts of every pixel, whatever form the truth has."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from maps import CLASSES, IDS, disturbed, patches, pixel_boxes, write_map, write_shapes, write_truth
from rasterio.rio.main import main_group
from rasters import HALF_METRE, write_raster
from sklearn import metrics as reference

from glraster.raster.writer import CLASSES_TAG, classes_json

H, W = 700, 1150


@pytest.fixture
def pair(tmp_path):
    """A map, its truth, and their pixels."""
    truth = patches(H, W)
    ids = disturbed(truth)
    ids[:40, :70] = 255
    truth[100:130, 500:900] = 255
    return write_map(tmp_path / "map.tif", ids), write_truth(tmp_path / "truth.tif", truth), ids, truth


def by_pixels(ids, truth):
    known = (ids != 255) & (truth != 255)
    return reference.confusion_matrix(truth[known], ids[known], labels=list(IDS))


def test_counts_are_those_of_all_pixels(pair, evaluated):
    mask, truth, ids, true = pair
    found = evaluated(mask, truth)
    assert found["confusion"] == by_pixels(ids, true).tolist()
    assert found["pixels"] == int(((ids != 255) & (true != 255)).sum())
    assert found["ignored_pixels"] == int((true == 255).sum())
    assert found["unmapped_pixels"] == int(((ids == 255) & (true != 255)).sum())


@pytest.mark.parametrize("form", ["alpha", "float"])
def test_the_form_of_a_map_does_not_change_its_counts(form, pair, evaluated, tmp_path):
    mask, truth, ids, _ = pair
    if form == "alpha":
        pixels = np.stack([np.where(ids == 255, 1, ids), np.where(ids == 255, 0, 255)]).astype(np.uint8)
        other = write_raster(tmp_path / "other.tif", pixels, photometric="MINISBLACK", alpha="YES")
    else:
        other = write_raster(tmp_path / "other.tif", np.where(ids == 255, np.nan, ids)[None].astype(np.float32))
    with rasterio.open(other, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: classes_json(CLASSES)})
    assert evaluated(other, truth)["confusion"] == evaluated(mask, truth)["confusion"]


def test_scores_are_those_of_scikit_learn(pair, evaluated):
    mask, truth, ids, true = pair
    found = evaluated(mask, truth)
    known = (ids != 255) & (true != 255)
    arguments = {"y_true": true[known], "y_pred": ids[known], "labels": list(IDS)}
    assert found["miou"] == pytest.approx(reference.jaccard_score(**arguments, average="macro"))
    assert [c["f1"] for c in found["classes"]] == pytest.approx(reference.f1_score(**arguments, average=None))
    assert found["accuracy"] == pytest.approx((true == ids)[known].mean())
    assert found["frequency_weighted_iou"] == pytest.approx(reference.jaccard_score(**arguments, average="weighted"))
    assert [c["name"] for c in found["classes"]] == [c.name for c in CLASSES]


def test_boundaries_do_not_depend_on_the_tiles_they_are_counted_in(pair, evaluated, monkeypatch):
    mask, truth, *_ = pair
    whole = evaluated(mask, truth, "--tolerance", "1.6")
    monkeypatch.setattr("glraster.evaluation.compare.TILE_PX", 97)
    assert [c["boundary_f1"] for c in evaluated(mask, truth, "--tolerance", "1.6")["classes"]] == [
        c["boundary_f1"] for c in whole["classes"]
    ]
    assert whole["boundary_tolerance"] == "1.6 m"
    assert 0 < whole["boundary_f1"] < 1


def test_polygons_give_what_their_raster_gives(tmp_path, evaluated):
    truth = patches(120, 161, side=23)
    ids = disturbed(truth)
    mask = write_map(tmp_path / "map.tif", ids)
    boxes, values = pixel_boxes(truth, 23)
    names = {c.id: c.name for c in CLASSES}
    by_id = write_shapes(tmp_path / "ids.gpkg", boxes, values, "class_id")
    by_name = write_shapes(tmp_path / "names.gpkg", boxes, [names[v] for v in values])
    expected = by_pixels(ids, truth).tolist()
    assert evaluated(mask, by_id)["confusion"] == expected
    assert evaluated(mask, by_name)["confusion"] == expected


def test_outside_of_polygons_is_not_judged_or_is_the_background(tmp_path, evaluated):
    truth = np.full((60, 60), 7, np.uint8)
    truth[10:30, 10:40] = 3
    mask = write_map(tmp_path / "map.tif", disturbed(truth))
    boxes, _ = pixel_boxes(np.full((20, 30), 3, np.uint8), 99)
    moved = shapely.transform(boxes[0], lambda xy: xy + np.array([5, -5]))
    file = write_shapes(tmp_path / "roofs.gpkg", [moved], ["building & roof"])
    assert evaluated(mask, file)["pixels"] == 600
    found = evaluated(mask, file, "--background", "bare land")
    assert found["confusion"] == by_pixels(disturbed(truth), truth).tolist()


def test_ignored_values_are_not_judged(pair, evaluated, tmp_path):
    mask, _, ids, true = pair
    strange = true.copy()
    strange[200:300] = 42
    truth = write_truth(tmp_path / "strange.tif", strange)
    expected = np.where(strange == 42, 255, strange)
    assert evaluated(mask, truth, "--ignore", "42")["confusion"] == by_pixels(ids, expected).tolist()


def test_a_value_that_is_no_class_is_an_error_with_its_count(pair, run, tmp_path):
    mask, _, _, true = pair
    strange = true.copy()
    strange[505:520, 505:515] = 42
    outcome = run("evaluate", mask, write_truth(tmp_path / "strange.tif", strange))
    assert outcome.code == 1
    assert "no class: 42 (150 px)" in outcome.err
    assert "--ignore" in outcome.err


def test_a_truth_with_other_ids_is_joined_by_names(pair, evaluated, tmp_path):
    mask, _, ids, true = pair
    renumbered = np.select([true == 3, true == 7, true == 1], [0, 1, 2], 255).astype(np.uint8)
    truth = write_truth(tmp_path / "renumbered.tif", renumbered)
    found = evaluated(mask, truth, "--classes", "0=building & roof,1=bare land,2=water")
    assert found["confusion"] == by_pixels(ids, true).tolist()


def test_classes_that_the_truth_does_not_tell_apart_become_others(pair, evaluated, tmp_path):
    mask, _, ids, true = pair
    two = np.select([true == 3, true == 255], [1, 255], 0).astype(np.uint8)
    truth = write_truth(tmp_path / "roofs.tif", two)
    found = evaluated(mask, truth, "--classes", "0=rest,1=building & roof", "--others", "rest")
    known = (ids != 255) & (true != 255)
    assert found["confusion"] == reference.confusion_matrix(true[known] == 3, ids[known] == 3).tolist()
    assert [c["name"] for c in found["classes"]] == ["rest", "building & roof"]


def test_a_class_that_the_truth_does_not_know_is_wrong_wherever_it_is_mapped(pair, evaluated):
    mask, truth, *_ = pair
    found = evaluated(mask, truth, "--classes", "3=building & roof,7=bare land", "--ignore", "1")
    assert [c["name"] for c in found["classes"]] == ["building & roof", "bare land", "water"]
    water = found["classes"][2]
    assert (water["true_pixels"], water["iou"]) == (0, 0)
    assert water["predicted_pixels"] > 0


def test_without_a_name_in_common_nothing_is_guessed(pair, run):
    mask, truth, *_ = pair
    outcome = run("evaluate", mask, truth, "--classes", "3=roof,7=soil,1=sea")
    assert outcome.code == 1
    assert "namesake" in outcome.err


def test_other_grid_is_an_error_whose_command_helps(pair, run, tmp_path, evaluated):
    mask, _, ids, true = pair
    shifted = true[50:650, 80:1100]
    moved = HALF_METRE @ Affine.translation(80, 50)
    truth = write_truth(tmp_path / "part of truth.tif", shifted, transform=moved)
    outcome = run("evaluate", mask, truth)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    command = shlex.split(outcome.err.split("or run: ")[1])
    assert command[:2] == ["rio", "warp"]
    done = CliRunner().invoke(main_group, command[1:])
    assert done.exit_code == 0, done.output
    expected = np.full_like(true, 255)
    expected[50:650, 80:1100] = shifted
    assert evaluated(mask, command[3])["confusion"] == by_pixels(ids, expected).tolist()
    assert evaluated(mask, truth, "--resample")["confusion"] == by_pixels(ids, expected).tolist()


def test_messages_about_a_resampled_truth_name_its_own_file(pair, run, tmp_path):
    mask, _, _, true = pair
    strange = np.where(true == 7, 42, true)[50:650, 80:1100].astype(np.uint8)
    truth = write_truth(tmp_path / "moved.tif", strange, transform=HALF_METRE @ Affine.translation(80, 50))
    outcome = run("evaluate", mask, truth, "--resample")
    assert outcome.code == 1
    assert outcome.err.startswith(f"glraster: error: {truth}: has label values that are no class: 42 (")
    assert "leave them out with --ignore" in outcome.err


def test_a_truth_of_two_layers_is_chosen_from_by_the_option(pair, run, tmp_path):
    mask, *_ = pair
    boxes = [shapely.box(500_000, 5_299_900, 500_100, 5_300_000)]
    for layer in ("a", "b"):
        pyogrio.raw.write(
            tmp_path / "two.gpkg", shapely.to_wkb(np.array(boxes)), [np.array([3])], ["class"],
            geometry_type="Polygon", crs="EPSG:32633", layer=layer, append=layer == "b",
        )  # fmt: skip
    outcome = run("evaluate", mask, tmp_path / "two.gpkg")
    assert outcome.code == 1
    assert "has the layers a, b; choose one with --layer" in outcome.err
    assert run("evaluate", mask, tmp_path / "two.gpkg", "--layer", "b").code == 0
    assert (
        "two.gpkg: has no layer c; choose one with --layer"
        in run("evaluate", mask, tmp_path / "two.gpkg", "--layer", "c").err
    )


def test_resample_crosses_coordinate_systems(pair, evaluated, tmp_path):
    mask, truth, ids, true = pair
    wgs = tmp_path / "degrees.tif"
    done = CliRunner().invoke(main_group, ["warp", str(truth), str(wgs), "--dst-crs", "EPSG:4326", "--src-nodata",
                                           "255", "--dst-nodata", "255"])  # fmt: skip
    assert done.exit_code == 0, done.output
    found = np.array(evaluated(mask, wgs, "--resample")["confusion"])
    expected = by_pixels(ids, true)
    # twice resampled: pixels along the edges of patches may change their class
    assert abs(found - expected).sum() < 0.1 * expected.sum()
    assert np.trace(found) / found.sum() == pytest.approx(np.trace(expected) / expected.sum(), abs=0.06)


def test_other_grid_without_georeference_is_an_error(pair, run, tmp_path):
    mask, _, _, true = pair
    truth = write_truth(tmp_path / "plain.tif", true[:50], crs=None, transform=Affine.identity())
    for extra in ((), ("--resample",)):
        outcome = run("evaluate", mask, truth, *extra)
        assert outcome.code == 1
        assert "lack the georeference" in outcome.err


def test_worst_tiles_are_those_with_most_errors(tmp_path, evaluated):
    truth = np.full((1100, 1600), 7, np.uint8)
    ids = truth.copy()
    ids[600:900, 1100:1400] = 1  # tiles are 550 x 534 px
    found = evaluated(write_map(tmp_path / "map.tif", ids), write_truth(tmp_path / "truth.tif", truth))
    (worst,) = found["worst"]
    assert [worst[key] for key in ("top", "left", "height", "width")] == [550, 1068, 550, 532]
    assert worst["accuracy"] == pytest.approx(1 - 300 * 300 / (550 * 532))
    assert worst["mistaken"] == ["bare land", "water"]


def test_a_map_without_names_is_told_by_its_values(tmp_path, evaluated):
    truth = patches(64, 80)
    ids = disturbed(truth)
    found = evaluated(write_map(tmp_path / "map.tif", ids, ()), write_truth(tmp_path / "truth.tif", truth))
    assert [c["name"] for c in found["classes"]] == ["class 1", "class 3", "class 7"]
    known = reference.confusion_matrix(truth.ravel(), ids.ravel())
    assert found["confusion"] == known.tolist()


def test_tables_are_for_people_and_json_goes_to_a_file(pair, run, tmp_path):
    mask, truth, *_ = pair
    file = tmp_path / "scores.json"
    outcome = run("evaluate", mask, truth, "--json", file)
    assert outcome.code == 0, outcome.err
    assert "building & roof" in outcome.out
    assert f"{json.loads(file.read_text())['miou']:.4f}" in outcome.out
    again = run("evaluate", mask, truth, "--json", file)
    assert again.code == 1
    assert "use --overwrite" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("map.tif",), 2, "Give TRUTH"),
        (("map.tif", "absent.tif"), 1, "does not exist"),
        (("absent.tif", "truth.tif"), 1, "cannot be opened"),
        (("map.tif", "rgb.tif"), 1, "no class"),
        (("rgb.tif", "truth.tif"), 1, "has 3 bands; give a raster with one band of class numbers"),
        (("map.tif", "truth.tif", "--tolerance", "0"), 2, "neither metres"),
        (("map.tif", "truth.tif", "--tolerance", "900"), 2, "give less"),
        (("map.tif", "truth.tif", "--others", "sea", "--classes", "1=water"), 2, "no class of the truth"),
        (("map.tif", "truth.tif", "--model", "default"), 2, "is for catalogs"),
        (("map.tif", "notes.txt"), 1, "cannot be opened"),
    ],
    ids=["no truth", "absent truth", "absent map", "coloured", "image as map", "no reach", "far reach", "others",
         "model", "text"],
)  # fmt: skip
@pytest.mark.usefixtures("pair")
def test_a_wrong_call_is_one_line(arguments, code, text, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "rgb.tif", np.full((3, H, W), 130, np.uint8))
    (tmp_path / "notes.txt").write_text("no map")
    outcome = run("evaluate", *arguments)
    assert outcome.code == code
    assert text in outcome.err
    assert code == 2 or len(outcome.err.splitlines()) == 1


def test_a_model_in_the_environment_does_not_hinder(pair, run, monkeypatch):
    monkeypatch.setenv("GLRASTER_MODEL", "default")
    assert run("evaluate", pair[0], pair[1]).code == 0


def test_evaluating_two_maps_loads_no_torch(pair):
    import subprocess
    import sys

    script = (
        "import sys\nfrom glraster.evaluation.evaluate import evaluate\n"
        f"evaluate({str(pair[0])!r}, {str(pair[1])!r})\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
