"""A call of `train` is checked once: the catalog is read once, and every image and label is opened once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rasterio
from training.scenes import write_catalog

from glraster.errors import CatalogError
from glraster.training import job as module
from glraster.training.ddp import ALONE
from glraster.training.folder import RunFolder
from glraster.training.job import TrainJob, TrainOptions, checked_job

SMALL = ("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=2", "steps=6")


def check(catalog: Path, output: Path) -> TrainJob:
    folder = RunFolder(output)
    try:
        return checked_job([catalog], folder, TrainOptions(settings=SMALL), ALONE)
    finally:
        folder.close()


def test_every_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = write_catalog(tmp_path, scenes=4, side=160)
    opened: Counter[str] = Counter()
    open_raster, read_catalog = rasterio.open, module.load_catalog

    def counting(name: Any, *args: Any, **form: Any) -> Any:
        opened[Path(name).name] += 1
        return open_raster(name, *args, **form)

    def counting_catalogs(path: Path) -> Any:
        opened[path.name] += 1
        return read_catalog(path)

    monkeypatch.setattr(rasterio, "open", counting)
    monkeypatch.setattr(module, "load_catalog", counting_catalogs)
    job = check(catalog, tmp_path / "run")
    assert opened == {"catalog.yaml": 1} | {f"{kind}{i}.tif": 1 for i in range(4) for kind in ("image", "label")}
    assert job.data.images.areas == (160 * 160,) * 3


def test_images_of_the_val_split_are_checked_like_those_of_train(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, side=160, gsd_m=0.0025)
    with pytest.raises(CatalogError, match=r"image0\.tif: its pixels of 0\.5 m are too coarse") as caught:
        check(catalog, tmp_path / "run")
    assert "image2.tif" in str(caught.value)
    assert not (tmp_path / "run").exists()
