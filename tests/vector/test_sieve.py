"""Small parts are merged as a slow, plain search would merge them, whatever the band."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from glraster.vector.patches import RowMetrics, band_patches, with_new_values
from glraster.vector.sieve import new_values

NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def parts_of(mask):
    """Label of every pixel, -1 where blank, in the order of the parts' first pixels."""
    labels = np.full(mask.shape, -1)
    count = 0
    for start in np.argwhere(mask > 0):
        if labels[tuple(start)] >= 0:
            continue
        waiting = [tuple(start)]
        labels[tuple(start)] = count
        while waiting:
            row, column = waiting.pop()
            for down, right in NEIGHBOURS:
                place = row + down, column + right
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and labels[place] < 0 and mask[place] == mask[row, column]:
                    labels[place] = count
                    waiting.append(place)
        count += 1
    return labels, count


def common_borders(labels, part):
    along: dict[int, int] = {}
    for row, column in np.argwhere(labels == part):
        for down, right in NEIGHBOURS:
            place = row + down, column + right
            if 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]:
                other = int(labels[place])
                if other not in (-1, part):
                    along[other] = along.get(other, 0) + 1
    return along


def merged_slowly(mask, least):
    mask = mask.copy()
    while True:
        labels, count = parts_of(mask)
        size = np.bincount(labels[labels >= 0], minlength=count)
        for part in sorted(range(count), key=lambda i: (size[i], i)):
            along = common_borders(labels, part) if size[part] < least else {}
            if along:
                best = max(along, key=lambda i: (along[i], size[i], -i))
                mask[labels == part] = mask[labels == best][0]
                break
        else:
            return mask


def sieved(mask, rows, least):
    height, width = mask.shape
    pixels = np.zeros((height + 2, width + 2), mask.dtype)
    pixels[1:-1, 1:-1] = mask

    def bands():
        for first in range(1, len(pixels), rows):
            yield first - 1, pixels[first - 1 : first + rows]

    ones = np.ones(height)
    sizes = RowMetrics(0, ones, ones, ones)
    values = new_values((band_patches(band, 0, sizes, top, diagonal=False) for top, band in bands()), 0, least)
    merged = [with_new_values(band, new, diagonal=False) for (_, band), new in zip(bands(), values, strict=True)]
    assert all((above[-1] == below[0]).all() for above, below in itertools.pairwise(merged))
    return np.concatenate([band[1:] for band in merged])[:height, 1:-1]


@pytest.mark.parametrize("seed", range(60))
def test_parts_are_merged_as_by_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    height, width, rows, least = (int(n) for n in rng.integers((1, 1, 1, 2), (13, 13, 9, 9)))
    mask = rng.integers(seed % 2, 4, (height, width)).astype(np.uint8)
    np.testing.assert_array_equal(sieved(mask, rows, least), merged_slowly(mask, least))


def test_the_neighbour_with_the_longest_border_wins_not_the_commonest_class():
    mask = np.array([[2, 9, 3], [2, 9, 3], [9, 1, 9], [1, 1, 1]], np.uint8)
    mask[mask == 9] = 4
    wide = np.kron(mask, np.ones((1, 1), np.uint8))
    np.testing.assert_array_equal(sieved(wide, 2, 3), merged_slowly(wide, 3))


def test_nothing_becomes_a_hole():
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 3
    np.testing.assert_array_equal(sieved(mask, 4, 50), mask)
