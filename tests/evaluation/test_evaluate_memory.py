"""Evaluating and reporting need no more memory for a larger map."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from maps import disturbed, patches, write_map, write_truth

MEASURE = """
import sys
from glraster.process import peak_memory_bytes
from glraster.raster import source
from glraster.evaluation.evaluate import evaluate
from glraster.reporting.report import ReportOptions, write_report

source.CACHE_BYTES = 8 * 2**20  # GDAL's cache fills as it may: made smaller than either map
what, mask, truth, page = sys.argv[1:]
if what == "evaluate":
    evaluate(mask, truth)
else:
    write_report(mask, page, ReportOptions(truth=truth))
print(peak_memory_bytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["evaluate", "report"])
def test_larger_map_takes_no_more_memory(what, tmp_path):
    peaks = []
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    piece = patches(1900, 1900, side=40)
    for name, times in (("small", 1), ("large", 4)):
        truth = np.tile(piece, (times, times))
        mask = write_map(tmp_path / f"{name}.tif", np.tile(disturbed(piece, 0.05), (times, times)), **layout)
        files = (mask, write_truth(tmp_path / f"{name}_truth.tif", truth, **layout), tmp_path / f"{name}.html")
        command = [sys.executable, "-c", MEASURE, what, *map(str, files)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    # one byte of every pixel held would be 54 MB more
    assert peaks[1] - peaks[0] < 25e6, [f"{peak / 1e6:.0f} MB" for peak in peaks]
