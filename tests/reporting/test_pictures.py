"""Pictures of a page show what they are made of; numbers stand inside the patches of their class."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from glraster.reporting.charts import ticks
from glraster.reporting.formatting import area, grouped, hectares, ink_on, percent
from glraster.reporting.pictures import (
    WRONG_COLOR,
    class_picture,
    confidence_colors,
    confidence_picture,
    distinct,
    error_picture,
    photo,
)
from glraster.reporting.spots import shrink, spots

COLORS = ((200, 30, 30), (180, 150, 90), (40, 90, 200))


def pixels(picture):
    """What a browser sees: (H, W, 4)."""
    head, data = picture.uri.split(",", 1)
    assert head == f"data:{picture.mime};base64"
    image = Image.open(BytesIO(base64.b64decode(data)))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("RGBA"))


def test_classes_have_their_colours_and_no_class_is_transparent():
    indexes = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (31, 47))
    seen = pixels(class_picture(indexes, COLORS))
    for index, color in enumerate(COLORS):
        assert (seen[indexes == index] == (*color, 255)).all()
    assert (seen[indexes == 255][:, 3] == 0).all()


def test_errors_are_where_two_maps_differ():
    truth = np.array([[0, 1, 255, 2]], np.uint8)
    prediction = np.array([[0, 2, 1, 255]], np.uint8)
    seen = pixels(error_picture(truth, prediction, 3))[0]
    assert seen[0].tolist() == [255, 255, 255, 255]
    assert seen[1].tolist() == [*WRONG_COLOR, 255]
    assert (seen[2:, 3] == 0).all()


def test_confidence_gets_brighter():
    percents = np.array([[0, 4, 5, 50, 99, 100, 255]], np.uint8)
    seen = pixels(confidence_picture(percents))[0].astype(int)
    assert seen[0].tolist() == seen[1].tolist() != seen[2].tolist()
    luminance = [c @ (0.2126, 0.7152, 0.0722) for c in np.array(confidence_colors())]
    assert (np.diff(luminance) > 0).all()
    assert seen[4].tolist() == seen[5].tolist()
    assert seen[6, 3] == 0


def test_a_photo_is_close_to_its_pixels():
    rows, columns = np.mgrid[:64, :96]
    image = np.stack([rows * 3, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    assert abs(pixels(photo(image))[..., :3].astype(int) - image).mean() < 4


def test_equal_colours_become_different_by_a_trace():
    colors = distinct([(1, 2, 3), (1, 2, 3), (9, 9, 255), (9, 9, 255), (1, 2, 3)])
    assert len(set(colors)) == 5
    assert colors[0] == (1, 2, 3)
    assert colors[2] == (9, 9, 255)


def test_numbers_stand_inside_patches_of_their_class():
    indexes = np.full((90, 120), 2, np.uint8)
    indexes[10:50, 20:70] = 0
    indexes[60:62, :] = 1  # too thin to hold a number
    places = spots(indexes, 3)
    assert {spot.index for spot in places} == {0, 2}
    for spot in places:
        assert indexes[int(spot.y * 90), int(spot.x * 120)] == spot.index
    (first,) = [spot for spot in places if spot.index == 0]
    assert (first.y, first.x) == pytest.approx((30 / 90, 45 / 120), abs=0.1)


def test_shrunk_maps_keep_their_place():
    indexes = np.arange(200, dtype=np.uint8)[:, None].repeat(400, 1)
    small = shrink(indexes, 40)
    assert small.shape == (20, 40)
    assert small[:, 0].tolist() == list(range(5, 200, 10))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.1234), "12.3 %"),
        (percent(None), "–"),
        (grouped(1234567.6), "1\u202f234\u202f568"),
        (hectares(12_345.6), "1.23"),
        (hectares(1_234_560), "123.5"),
        (hectares(86), "0.0086"),
        (area(5000), "5\u202f000 m²"),
        (area(50_000), "5.00 ha"),
        (area(12_345_678), "12.3 km²"),
        (ink_on((255, 255, 255)), "#000000"),
        (ink_on((0, 0, 90)), "#ffffff"),
        (ticks(0, 1), (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (ticks(100, 1700, 4), (500, 1000, 1500)),
    ],
)
def test_figures_read_well(text, expected):
    assert text == pytest.approx(expected) if isinstance(expected, tuple) else text == expected
