"""Scenes in an object store: an S3 server on loopback, found by the variables that GDAL's manual names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from rasters import landscape, read, write_raster
from remote.loopback_s3 import SECRET, s3_server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The environment of a client of `s3://maps/scene.tif`, and its local copy."""
    folder = tmp_path_factory.mktemp("s3")
    write_raster(folder / "plain.tif", landscape(600, 700), tiled=True)
    rasterio.shutil.copy(folder / "plain.tif", folder / "scene.tif", driver="COG", BLOCKSIZE=256)
    with s3_server() as (environment, client):
        client.upload_file(str(folder / "scene.tif"), "maps", "scene.tif")
        yield environment, folder / "scene.tif"


def segment(
    scene: str | Path, mask: Path, model: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: GDAL reads the account once."""
    command = [sys.executable, "-m", "glraster_cli", "segment", str(scene), "-o", str(mask), "-m", str(model)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


@pytest.mark.parametrize("scheme", ["s3://", "/vsis3/"])
def test_a_scene_in_s3_gives_the_mask_of_the_local_one(scheme, bucket, tmp_path, model_file, run):
    environment, local = bucket
    far = segment(f"{scheme}maps/scene.tif", tmp_path / "far.tif", model_file(), environment)
    assert (far.returncode, far.stderr) == (0, "")
    assert run("segment", local, "-o", tmp_path / "near.tif", "-m", model_file()).code == 0
    assert np.array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))


def test_an_absent_key_ends_in_one_line_without_the_account(bucket, tmp_path, model_file):
    environment, _ = bucket
    outcome = segment("s3://maps/none.tif", tmp_path / "mask.tif", model_file(), environment)
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (1, "", 1)
    assert "s3://maps/none.tif: cannot be opened as a raster" in outcome.stderr
    assert "check the address" in outcome.stderr
    assert SECRET not in outcome.stderr


def test_without_an_account_the_store_refuses_in_one_line(bucket, tmp_path, model_file):
    environment, _ = bucket
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    nobody |= {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    outcome = segment("/vsis3/maps/scene.tif", tmp_path / "mask.tif", model_file(), environment | nobody)
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (1, "", 1)
    assert "check the credentials" in outcome.stderr
