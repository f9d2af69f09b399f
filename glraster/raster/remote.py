"""Rasters and vectors behind HTTP or in object stores: GDAL's settings, retries, and what identifies a scene."""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

import rasterio
from rasterio.env import getenv, hasenv
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from glraster.names import is_remote

REMOTE_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http:/vsis3/:/vsigs/:/vsiaz/:/vsiadls/:/vsioss/:/vsiswift/",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "16777216",
}
"""GDAL's settings for a remote scene: no listing of neighbouring files, joined ranges, four retries with growing pauses
(0.5 s, doubled each time), a time-out after 30 s below 100 bytes/s, and no cache of closed files."""

_HTTP = re.compile(r"^(?:/vsicurl/)?(https?://\S+)$", re.I)
_VALIDATORS = ("ETag", "Content-Length", "Last-Modified")
_ADVICE = (
    (
        r"\b40[13]\b|Access.?Denied|credentials|_ACCESS_KEY|SignatureDoesNotMatch",
        "its server refuses access; check the credentials",
    ),
    (r"\b404\b|NoSuch|does not exist", "its server knows no such file; check the address"),
    (r"\b(429|5\d\d)\b", "its server fails; try again later"),
    (
        r"connect|resolve|time|slow|curl|sending request",
        "its server does not answer; check the address and the network",
    ),
)
"""Patterns of GDAL's messages about the network, and what to do about each."""


def advice(message: str) -> str:
    """What to do about GDAL's message on a remote raster; empty if it says nothing of the network."""
    return next((text for pattern, text in _ADVICE if re.search(pattern, message, re.I)), "")


@contextmanager
def remote_settings(name: str) -> Iterator[None]:
    """GDAL with `REMOTE_SETTINGS` if a name is remote; what the user set, in the environment or in GDAL, stays."""
    if not is_remote(name):
        yield
        return
    known = getenv() if hasenv() else {}
    settings = {key: value for key, value in REMOTE_SETTINGS.items() if key not in os.environ and key not in known}
    with rasterio.Env(**settings):
        yield


@contextmanager
def remote_vectors(name: str) -> Iterator[None]:
    """`remote_settings` for vectors, which pyogrio reads with a GDAL of its own: the settings for HTTP.

    Mutes its warnings, which report retries with the whole address, credentials included.
    """
    if not is_remote(name):
        yield
        return
    import pyogrio

    unset = [key for key in REMOTE_SETTINGS if key.startswith("GDAL_HTTP") and not pyogrio.get_gdal_config_option(key)]
    pyogrio.set_gdal_config_options({key: REMOTE_SETTINGS[key] for key in unset})
    try:
        with warnings.catch_warnings(category=RuntimeWarning, action="ignore"):
            yield
    finally:
        pyogrio.set_gdal_config_options(dict.fromkeys(unset))


def retry_pauses() -> list[float]:
    """Seconds to wait before each retry, the same as GDAL's own."""
    count, first = (os.environ.get(k, REMOTE_SETTINGS[k]) for k in ("GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_RETRY_DELAY"))
    return [float(first) * 2**i for i in range(int(count))]


def remote_state(name: str, dataset: DatasetReader) -> dict[str, object]:
    """What changes if a remote scene changes: the server's validators of the file, and a digest of nine blocks.

    Validators are ETag, length and date, over HTTP only. The digest works for every protocol: pixels of nine blocks
    spread over the scene and, in a TIFF, their offsets in the file, which move if a block before them is rewritten.
    """
    match = _HTTP.match(name)
    return {**(_validators(match[1]) if match else {}), "blocks": _blocks_digest(dataset)}


def _validators(url: str, tries: int = 3) -> dict[str, object]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "glraster"})
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return {key: answer.headers[key] for key in _VALIDATORS if answer.headers[key]}
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return {}
        except (OSError, ValueError, HTTPException):
            pass
        if attempt + 1 < tries:
            time.sleep(0.5 * 2**attempt)
    return {}


def _blocks_digest(dataset: DatasetReader) -> str:
    height, width = dataset.block_shapes[0]
    rows, columns = -(-dataset.height // height), -(-dataset.width // width)
    digest = hashlib.sha256()
    for row in sorted({0, rows // 2, rows - 1}):
        for column in sorted({0, columns // 2, columns - 1}):
            for what in ("OFFSET", "SIZE"):
                place = dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1)
                digest.update(str(place).encode())
            try:
                digest.update(dataset.read(1, window=_corner(dataset, row * height, column * width)).tobytes())
            except RasterioError:
                digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def _corner(dataset: DatasetReader, top: int, left: int, side: int = 256) -> RasterioWindow:
    return RasterioWindow(left, top, min(side, dataset.width - left), min(side, dataset.height - top))
