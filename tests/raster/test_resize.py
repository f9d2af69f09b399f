"""Thumbnails are those that GLNet's weights were trained on: Pillow's, bit by bit."""

import numpy as np
import pytest
from PIL import Image

from glraster.raster.resize import thumbnail


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(300, 220, (128, 128)), (1100, 1500, (508, 508)), (37, 5, (105, 105)), (90, 640, (90, 33)), (64, 64, (64, 64))],
)
def test_bytes_are_resized_as_pillow_does(height: int, width: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(thumbnail(image.transpose(2, 0, 1), *size), expected.transpose(2, 0, 1))


def test_floats_keep_their_precision() -> None:
    ramp = np.tile(np.linspace(0, 1, 400, dtype=np.float32), (2, 300, 1))
    small = thumbnail(ramp, 75, 100)
    assert small.shape == (2, 75, 100)
    np.testing.assert_allclose(small[:, :, 1:-1], ramp[:, ::4, 4:-4:4] + 1.5 / 399, atol=1e-6)


def test_a_thumbnail_of_halved_integers_keeps_their_dtype_and_mean() -> None:
    image = np.random.default_rng(1).integers(0, 4000, (1, 200, 200)).astype(np.uint16)
    small = thumbnail(image, 50, 50)
    assert small.dtype == np.uint16
    assert abs(float(small.mean()) - float(image.mean())) < 5
