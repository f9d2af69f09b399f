"""Places that keep small files of a run under a name, whole or not at all: a folder, or an object store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glraster.files import remove_if_empty, replacing

_URL = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://", re.I)
_VSI = re.compile(r"^/vsi(?P<scheme>s3|gs|az|adls)/(?P<rest>.+)$")
_SCHEMES = {"adls": "abfs"}
"""What fsspec calls a file system of GDAL's, where the names differ."""


class Store(Protocol):
    """Files by name. `name` is where they are; another process finds them by it, with `store_at`."""

    @property
    def name(self) -> str: ...

    def write(self, file: str, content: bytes) -> None:
        """Keep a file, in the place of an older one. Whoever reads finds all of it, or the older one, or none."""

    def read(self, file: str) -> bytes | None:
        """The content of a file; None where there is none, or a torn one."""

    def files(self) -> set[str]:
        """The names of all files."""

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the files that are there."""

    def remove(self, files: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""

    def close(self) -> None:
        """Remove what is left of the store once it is empty."""


@dataclass(frozen=True)
class FolderStore:
    """Files in a folder: written beside their name, flushed to the disk and renamed."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def write(self, file: str, content: bytes) -> None:
        self.path.mkdir(exist_ok=True)
        with replacing(self.path / file, durable=True) as beside:
            beside.write_bytes(content)

    def read(self, file: str) -> bytes | None:
        try:
            return (self.path / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self) -> set[str]:
        return {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        found = {file: self.path / file for file in files}
        return {file: path.stat().st_size for file, path in found.items() if path.exists()}

    def remove(self, files: Iterable[str]) -> None:
        for file in files:
            (self.path / file).unlink(missing_ok=True)

    def close(self) -> None:
        remove_if_empty(self.path)


def store_at(name: str) -> Store:
    """The store of a name: a folder, or a URL.

    Args:
        name: a folder; `file://...`; `s3://bucket/key`; `/vsis3/...`, `/vsigs/...`, `/vsiaz/...` as GDAL spells them;
            or any other URL that fsspec knows.

    Raises:
        UsageError: where nothing that is installed speaks the URL's protocol.
        OutputError: where the store refuses access.
    """
    url = store_url(name)
    if url is None:
        return FolderStore(Path(name.removeprefix("file://")))
    from glraster.segmentation.object_store import ObjectStore

    return ObjectStore(url)


def store_url(name: str) -> str | None:
    """The URL of a store; None for a folder."""
    found = _VSI.match(name)
    if found:
        return f"{_SCHEMES.get(found['scheme'], found['scheme'])}://{found['rest'].rstrip('/')}"
    scheme = _URL.match(name)
    return None if scheme is None or scheme["scheme"].lower() == "file" else name.rstrip("/")
