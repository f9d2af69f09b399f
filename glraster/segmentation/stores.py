"""Places that keep small files of a run under a name, whole or not at all: a folder, or an object store."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glraster.errors import OutputError, UsageError
from glraster.files import remove_if_empty, replacing
from glraster.names import redact
from glraster.raster.remote import advice

_URL = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://", re.I)
_VSI = re.compile(r"^/vsi(?P<scheme>s3|gs|az|adls)/(?P<rest>.+)$")
_SCHEMES = {"adls": "abfs"}
"""The schemes of URLs whose names differ from GDAL's."""

_REQUEST_OF_ERROR = re.compile(r"Error performing [A-Z]+ \S+ in \S+s\b.*? - ")

_DIGEST_BYTES = 32

_CONNECT, _REQUEST, _RETRIES = "10s", "120s", 3
"""Patience with a server: to connect, for a whole request, and how often one is repeated, after growing pauses."""

_FEW = 16
"""Up to so many files are asked for one by one; more are looked up in the list of all."""


class Store(Protocol):
    """Files by name. `name` is where they are; another process finds them by it, with `store_at`."""

    @property
    def name(self) -> str: ...

    def write(self, file: str, content: bytes) -> None:
        """Keep a file, in the place of an older one. Whoever reads gets all of it, or the older one, or none."""

    def read(self, file: str) -> bytes | None:
        """The content of a file; None if there is none, or a torn one."""

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
        paths = {file: self.path / file for file in files}
        return {file: path.stat().st_size for file, path in paths.items() if path.exists()}

    def remove(self, files: Iterable[str]) -> None:
        for file in files:
            (self.path / file).unlink(missing_ok=True)

    def close(self) -> None:
        remove_if_empty(self.path)


class ObjectStore:
    """Files as objects below a URL, each with its SHA-256 at its end, which shows a torn one.

    A store has no rename; an object is put as a whole. The account is that of the environment: `AWS_...` and the
    profiles of the AWS programs, `GOOGLE_...`, `AZURE_...`.

    Raises:
        UsageError: if obstore is not installed, does not know the URL's protocol, or lacks an account.
        OutputError: from every method, if the store cannot be reached or refuses.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        scheme = url.partition("://")[0]
        try:
            self._store = _open(url, scheme)
        except ImportError as error:
            libraries = "obstore and boto3" if scheme == "s3" else "obstore"
            raise UsageError(
                f"{scheme}:// needs {libraries}; install them with pip install 'glraster[cloud]'"
            ) from error
        except Exception as error:  # obstore's own, boto3's own, and ValueError
            raise UsageError(f"{redact(url)}: is no place for parts: {_reason(error)}") from error

    @property
    def name(self) -> str:
        return self._url

    def write(self, file: str, content: bytes) -> None:
        import obstore

        with self._errors("written"):
            # in one request: an upload in pieces that is interrupted would leave pieces in the store
            obstore.put(self._store, file, content + hashlib.sha256(content).digest(), use_multipart=False)

    def read(self, file: str) -> bytes | None:
        import obstore

        with self._errors("read"):
            try:
                stored = bytes(obstore.get(self._store, file).bytes())
            except FileNotFoundError:
                return None
        content, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def files(self) -> set[str]:
        return set(self._list())

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        import obstore

        names, sizes = list(files), {}
        if len(names) > _FEW:
            listed = self._list()
            return {name: listed[name] for name in names if name in listed}
        with self._errors("read"):
            for name in names:
                with suppress(FileNotFoundError):
                    sizes[name] = obstore.head(self._store, name)["size"] - _DIGEST_BYTES
        return sizes

    def remove(self, files: Iterable[str]) -> None:
        import obstore

        with self._errors("written"):
            for file in files:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, file)

    def close(self) -> None:
        """Nothing is left of an empty store."""

    def _list(self) -> dict[str, int]:
        import obstore

        with self._errors("read"):
            pages = obstore.list(self._store)
            return {entry["path"]: entry["size"] - _DIGEST_BYTES for page in pages for entry in page}

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = _reason(error)
            raise OutputError(f"{redact(self._url)}: cannot be {action}: {advice(reason) or reason}") from error


def _open(url: str, scheme: str) -> Any:
    from obstore.store import S3Store, from_url

    client: dict[str, Any] = {"connect_timeout": _CONNECT, "timeout": _REQUEST}
    settings: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": _RETRIES}}
    if scheme != "s3":
        return from_url(url, **settings)
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1"):
        settings["skip_signature"] = True
    else:
        from boto3 import Session
        from obstore.auth.boto3 import Boto3CredentialProvider

        session = Session()
        if session.get_credentials() is None:
            raise ValueError("no account; set AWS_ACCESS_KEY_ID, AWS_PROFILE or AWS_NO_SIGN_REQUEST=YES")
        settings["credential_provider"] = Boto3CredentialProvider(session)
    protocol, _, endpoint = os.environ.get("AWS_S3_ENDPOINT", "").rpartition("://")  # GDAL's names for an endpoint
    if endpoint:
        plain = os.environ.get("AWS_HTTPS", "").upper() in ("NO", "FALSE", "OFF", "0")
        protocol = protocol or ("http" if plain else "https")
        client["allow_http"] = protocol == "http"
        settings["endpoint"] = f"{protocol}://{endpoint}"
        settings["virtual_hosted_style_request"] = os.environ.get("AWS_VIRTUAL_HOSTING", "").upper() == "TRUE"
    return S3Store.from_url(url, **settings)


def _reason(error: Exception) -> str:
    """An error of obstore in one line, without its debugging output, the request and how long it took."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    return redact(_REQUEST_OF_ERROR.sub("", text))


def store_at(name: str) -> Store:
    """The store of a name: a folder, or a URL.

    Args:
        name: a folder; `file://...`; `s3://bucket/key`, `gs://...`, `az://...`; or `/vsis3/...`, `/vsigs/...`,
            `/vsiaz/...` as GDAL spells them.

    Raises:
        UsageError: if obstore is not installed, does not know the URL's protocol, or lacks an account.
    """
    url = store_url(name)
    return FolderStore(Path(name.removeprefix("file://"))) if url is None else ObjectStore(url)


def store_url(name: str) -> str | None:
    """The URL of a store; None for a folder."""
    vsi = _VSI.match(name)
    if vsi:
        return f"{_SCHEMES.get(vsi['scheme'], vsi['scheme'])}://{vsi['rest'].rstrip('/')}"
    scheme = _URL.match(name)
    return None if scheme is None or scheme["scheme"].lower() == "file" else name.rstrip("/")
