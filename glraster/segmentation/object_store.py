"""Files as the objects of a store: Amazon's S3 and whatever speaks its protocol, and all that fsspec knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyarrow import fs

from glraster.errors import OutputError, UsageError
from glraster.names import redact
from glraster.raster.remote import advice

_DIGEST_BYTES = 32

_CONNECT_S, _ANSWER_S, _TRIES = 10, 30, 4
"""Patience with an S3 server, and with the network: pauses between the tries grow."""

_FEW = 16
"""Files that are asked for one by one; more are found in the list of all."""


class ObjectStore:
    """Files as objects below a URL, each with its SHA-256 at its end, which tells a torn one.

    A store has no rename; an object is put as a whole. The account is that of the environment: `AWS_...` as the AWS
    programs and GDAL read them, or what fsspec's driver reads.

    Raises:
        UsageError: where no driver for the URL is installed, or it lacks an account.
        OutputError: from every method, where the store cannot be reached or refuses.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._system, self._root = _s3(url) if url.startswith("s3://") else _by_fsspec(url)

    @property
    def name(self) -> str:
        return self._url

    def write(self, file: str, content: bytes) -> None:
        with self._speaking("written"), self._system.open_output_stream(self._path(file)) as stream:
            stream.write(content + hashlib.sha256(content).digest())

    def read(self, file: str) -> bytes | None:
        with self._speaking("read"):
            try:
                with self._system.open_input_stream(self._path(file)) as stream:
                    found: bytes = stream.read()
            except FileNotFoundError:
                return None
        content, digest = found[:-_DIGEST_BYTES], found[-_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def files(self) -> set[str]:
        return set(self._list())

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        wanted = list(files)
        if len(wanted) > _FEW:
            found = self._list()
            return {file: found[file] for file in wanted if file in found}
        with self._speaking("read"):
            infos = self._system.get_file_info([self._path(file) for file in wanted])
        return {
            file: info.size - _DIGEST_BYTES
            for file, info in zip(wanted, infos, strict=True)
            if info.type == fs.FileType.File
        }

    def remove(self, files: Iterable[str]) -> None:
        with self._speaking("written"):
            for file in files:
                with suppress(FileNotFoundError):
                    self._system.delete_file(self._path(file))

    def close(self) -> None:
        """Remove the empty object that some drivers leave in the place of a folder."""
        if not self.files():
            with self._speaking("written"), suppress(FileNotFoundError):
                self._system.delete_dir(self._root)

    def _path(self, file: str) -> str:
        return f"{self._root}/{file}"

    def _list(self) -> dict[str, int]:
        with self._speaking("read"):
            infos = self._system.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return {info.base_name: info.size - _DIGEST_BYTES for info in infos if info.type == fs.FileType.File}

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every driver of fsspec has errors of its own
            reason = redact(" ".join(str(error).split()))
            told = advice(reason) or reason
            raise OutputError(f"{redact(self._url)}: cannot be {what}: {told}") from error


def _s3(url: str) -> tuple[Any, str]:
    """S3 by Arrow, which comes with glraster; GDAL's names for an endpoint count."""
    scheme, _, endpoint = os.environ.get("AWS_S3_ENDPOINT", "").rpartition("://")
    settings: dict[str, Any] = {
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "anonymous": os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1"),
    }
    if endpoint:
        plain = os.environ.get("AWS_HTTPS", "").upper() in ("NO", "FALSE", "OFF", "0")
        settings |= {
            "endpoint_override": endpoint,
            "scheme": scheme or ("http" if plain else "https"),
            "force_virtual_addressing": os.environ.get("AWS_VIRTUAL_HOSTING", "").upper() == "TRUE",
        }
    retry = fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES)
    patience = {"connect_timeout": _CONNECT_S, "request_timeout": _ANSWER_S, "retry_strategy": retry}
    return fs.S3FileSystem(**patience, **settings), url.removeprefix("s3://")


def _by_fsspec(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(url)
    except ImportError as error:
        missing = "fsspec; install it" if "fsspec" in str(error) else f"a driver of fsspec ({error})"
        raise UsageError(f"{scheme}:// needs {missing}") from error
    except ValueError as error:
        raise UsageError(f"{scheme}:// is no protocol that fsspec knows, or lacks its settings ({error})") from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), root.rstrip("/")
