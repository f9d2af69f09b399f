"""What the name of a raster or of vectors says: a local path or not, on the network or not, and what may be shown."""

from __future__ import annotations

import re

_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs)\b|^(?!file:|zip:|tar:|gzip:)[a-z][a-z0-9+]+://", re.I)
_ACCOUNT = re.compile(r"(://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(\w://[^\s?'\"]*\?|/vsi\w+[^\s?'\"]*\?)[^\s'\",;)]+")


def is_path(name: str) -> bool:
    """Whether a name is a path of this machine: no address, and none of GDAL's virtual files such as `/vsizip/...`."""
    return "://" not in name and not name.startswith("/vsi")


def is_remote(name: str) -> bool:
    """Whether GDAL fetches a name over the network: `https://...`, `s3://...`, `/vsicurl/...`, `/vsis3/...`."""
    return _REMOTE.search(name) is not None


def redact(text: str) -> str:
    """Strip credentials and query strings, which can hold signatures, from every address in a name or a message."""
    return _QUERY.sub(r"\1...", _ACCOUNT.sub(r"\1...@", text))
