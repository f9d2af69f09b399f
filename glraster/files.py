"""Own every output: claim it before the work, stage it and lock it meanwhile, put it in its place whole.

An output is more than one file name. What other programs keep beside it under its name (`mask.tif.aux.xml`,
`mask.tif.msk`, `landcover.gpkg-wal`) belongs to it and goes when it is replaced.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from glraster.errors import OutputError, UsageError
from glraster.locks import LOCK, LOCK_FILES, Lock

log = logging.getLogger(__name__)

Name = str | os.PathLike[str]

LONGEST_NAME = 255
"""Bytes of a file name, at most, on the file systems in use."""

STAGING = ".parts"
AUX_XML = ".aux.xml"
_RASTER_SIDE_CARS = (AUX_XML, ".msk", ".ovr", ".msk.ovr", ".vat.dbf")
_SQLITE_SIDE_CARS = ("-wal", "-shm", "-journal")
_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")

_STAGED = ("blocks.tif", "cog.tif", "names.xml", "journal.", "dissolve-", LOCK, "fetched")
"""Beginnings of the names in a staging folder that has no journal; GDAL may add endings."""

_SYNCLESS = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EROFS}
"""What file systems answer that cannot bring a file to the disk on demand."""

LITTLE_SPACE = 2**20
"""Free bytes below which a failure that nobody explains is put down to a full disk."""

WORTH_A_CHECK_BYTES = 2**30
"""A run that needs less soon reaches the point where the write itself fails, which says more about the reason."""


# Claim


def claim(
    *outputs: Path, inputs: Iterable[Name | None] = (), overwrite: bool = False, published: Collection[str] = ()
) -> None:
    """Refuse outputs of one call that cannot or must not be written, before any work is done for them.

    Args:
        outputs: the files to write.
        inputs: the files that the call reads; names of remote files are passed over.
        overwrite: existing outputs may be replaced.
        published: absolute names of existing outputs that may be replaced in any case.

    Raises:
        UsageError: if an output is an input, under whatever name, or two outputs are one file.
        OutputError: if an output exists, is a folder, has too long a name, or is open in another program; if its folder
            does not exist or is not writable.
    """
    for output in outputs:
        _check_place(output)
    refuse_duplicates(outputs)
    refuse_inputs(outputs, inputs)
    for output in outputs:
        if os.path.lexists(output) and not (overwrite or str(output.absolute()) in published):
            raise OutputError("exists", where=str(output), advice="use --overwrite to replace it")
        _settle_database(output)


def refuse_duplicates(outputs: Iterable[Path]) -> None:
    """Refuse outputs of one call that are one file, or of which one belongs to another.

    Raises:
        UsageError: if there are any.
    """
    names = [name for output in outputs for name in {os.path.normcase(path.resolve()) for path in family(output)}]
    if len(set(names)) < len(names):
        raise UsageError("two outputs have the same name", advice="give each its own")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Name | None]) -> None:
    """Refuse outputs that would replace an input, or what belongs to one. Without an old output no input is looked at.

    Raises:
        UsageError: with the output's name.
    """
    taken = {_identity(path): output for output in outputs for path in family(output)}
    taken.pop(None, None)
    if not taken:
        return
    for name in inputs:
        file = _local_file(name) if name else None
        for path in family(file) if file else ():
            output = taken.get(_identity(path))
            if output is not None:
                raise UsageError("is an input", where=str(output), advice="choose another output")


def family(output: Path) -> list[Path]:
    """An output and the names of all that belongs to it by its name, there or not."""
    kind = output.suffix.lower()
    endings = [*_RASTER_SIDE_CARS, *(_SQLITE_SIDE_CARS if kind == ".gpkg" else ())]
    parts = _SHAPEFILE_PARTS if kind == ".shp" else ()
    side_cars = (output.with_name(output.name + ending) for ending in endings)
    return [output, *side_cars, *(output.with_suffix(part) for part in parts)]


def style_path(raster: Path) -> Path:
    """The QGIS style of a raster: beside it, under its name, ending in `.qml`."""
    return raster.with_suffix(".qml")


def item_path(raster: Path) -> Path:
    """The STAC item of a raster: beside it, under its name, ending in `.stac.json`."""
    return raster.with_suffix(".stac.json")


def _check_place(output: Path) -> None:
    where = str(output)
    if not output.name:
        raise UsageError("an output needs a file name")
    try:
        folder, is_folder = output.absolute().parent, output.is_dir()
        folder_exists, is_special = folder.is_dir(), output.exists() and not output.is_file()
    except OSError as error:
        raise cannot_write(output, error) from error
    if max(len(path.name.encode()) for path in (*family(output), staging_folder(output))) > LONGEST_NAME:
        raise OutputError("cannot be written: its name is too long", where=where)
    if is_folder:
        raise OutputError("is a folder", where=where, advice="give a file name")
    if is_special:
        raise OutputError("is a device and no file", where=where, advice="give a file name")
    if not folder_exists:
        raise OutputError("its folder does not exist", where=where, advice="create it first")
    if not os.access(folder, os.W_OK):
        advice = "choose another or change its permissions"
        raise OutputError("its folder is not writable", where=where, advice=advice)


def _local_file(name: Name) -> Path | None:
    """The file behind a name as GDAL spells it, also in an archive; None if there is none on this machine."""
    text = os.fspath(name)
    bare = re.sub(r"^(file://|/vsi(zip|tar|gzip|7z|rar)/)+", "", text)
    path = Path(bare)
    for candidate in (path,) if bare == text else (path, *path.parents):
        if os.path.isfile(candidate):  # noqa: PTH113 (Path.is_file raises if a name is too long)
            return candidate
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


# Write beside, then rename


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name beside a file to write to; it takes the file's place at the end, or is removed if writing failed.

    A link in the file's place is replaced, not what it points to. With `durable` the content is on the disk before it
    has the name, so that a power failure leaves the old file or the new one.

    Raises:
        OSError: if the file cannot be written.
    """
    beside = _beside(path)
    try:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a whole output, in the place of an older one and all that belonged to that.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        with replacing(path, durable=True) as beside:
            beside.write_bytes(content.encode() if isinstance(content, str) else content)
            _remove_old(family(path)[1:])
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON document; numbers that JSON lacks (NaN, infinity) are an error of the caller."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def publish(unfinished: Path, output: Path, aux_xml: Path | None = None, *, raster: bool = False) -> None:
    """Move a finished file from its staging folder to its name.

    What belonged to an older file of the name goes: GDAL's side-cars, an orphaned journal of SQLite, and the style and
    the STAC item of an older raster.

    Args:
        unfinished: the file, on the same file system.
        output: its place.
        aux_xml: the side-car that comes with it.
        raster: whether it is one. Polygons of the same stem leave the raster's style alone.

    Raises:
        OutputError: if another program has the old GeoPackage open.
        OSError: if a file cannot be moved.
    """
    _settle_database(output)
    old = family(output)[1:]
    if raster and os.path.lexists(output):
        old += _described_by(output)
    side_car = output.with_name(output.name + AUX_XML)
    _remove_old(path for path in old if aux_xml is None or path != side_car)
    if aux_xml is not None:
        aux_xml.replace(side_car)
    unfinished.replace(output)


def sync(path: Path) -> None:
    """Bring a file's content to the disk; a file system that cannot do so is no error."""
    with path.open("rb+") as stream:
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in _SYNCLESS:
                raise


def is_unfinished(name: str) -> bool:
    """Whether a file name is one that `replacing` gave and a killed process left."""
    return name.startswith(".") and name.endswith(".tmp")


def cannot_write(output: Path, error: Exception, little_space: int = LITTLE_SPACE) -> OutputError:
    """The error for an output that cannot be written: the disk is full, or what the system or GDAL says.

    Args:
        output: the output.
        error: what was raised.
        little_space: free bytes below which a failure that a driver does not explain is put down to a full disk.
    """
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if isinstance(error, OSError) and error.errno is not None and not full:
        advice = "close it in other programs" if os.name == "nt" and isinstance(error, PermissionError) else ""
        return OutputError(f"cannot be written: {os.strerror(error.errno)}", where=str(output), advice=advice)
    folder = output.absolute().parent
    if full or (folder.exists() and shutil.disk_usage(folder).free < little_space):
        advice = "free some or choose another folder"
        return OutputError("cannot be written: no space left on device", where=str(output), advice=advice)
    if isinstance(error, OutputError):
        return OutputError(error.what, where=str(output), advice=error.advice)
    return OutputError(f"cannot be written: {' '.join(str(error.__cause__ or error).split())}", where=str(output))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{uuid4().hex[:12]}.tmp")


def _remove_old(paths: Iterable[Path]) -> None:
    for path in paths:
        if os.path.lexists(path) and not path.is_dir():
            path.unlink(missing_ok=True)


def _described_by(raster: Path) -> Iterator[Path]:
    """Style and STAC item of a raster. Their names lack its ending, so their content says whether they are its own."""
    marks = {style_path(raster): "<rasterrenderer", item_path(raster): f'{quote(raster.name)}"'}
    for path, mark in marks.items():
        with suppress(OSError, ValueError):
            if path != raster and mark in path.read_text(encoding="utf-8"):
                yield path


def _settle_database(output: Path) -> None:
    """Let SQLite finish what a crash left beside a GeoPackage.

    A write-ahead log or a journal that outlives its file would be applied to the next file of that name.

    Raises:
        OutputError: if another program has the file open.
    """
    if output.suffix.lower() != ".gpkg" or not output.is_file():
        return
    beside = [path.name for path in family(output) if path.name.endswith(_SQLITE_SIDE_CARS) and path.exists()]
    if not beside:
        return
    try:
        with closing(sqlite3.connect(output, timeout=0, isolation_level=None)) as database:
            # without exclusive mode, connections to a write-ahead log do not stand in each other's way
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("ROLLBACK")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            what = f"is open in another program, whose unsaved work is in {beside[0]} ({error})"
            raise OutputError(what, where=str(output), advice="close it there or choose another output") from error


# Stage


def staging_folder(output: Path) -> Path:
    """The folder beside an output that holds everything unfinished about it."""
    return output.with_name(output.name + STAGING)


def is_foreign(names: Collection[str], output: str = "") -> bool:
    """Whether a staging folder with these files is none of glraster's; `output` is the name of what it is for."""
    known = (*_STAGED, output) if output else _STAGED
    return "journal.json" not in names and not all(name.startswith(known) or is_unfinished(name) for name in names)


def refuse_foreign(folder: Path) -> None:
    """Refuse a staging folder that holds what glraster never puts there.

    Raises:
        OutputError: with the folder's name.
    """
    if not os.path.lexists(folder):
        return
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {""}
    if is_foreign(names, folder.name.removesuffix(STAGING)):
        what = "is in the way and no folder of glraster's"
        raise OutputError(what, where=str(folder), advice="move or rename it")


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless it holds something; a link to one is its owner's."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def staged(output: Path, *, raster: bool = False) -> Iterator[Path]:
    """Give a path in the staging folder to write to, and `publish` it as `output` at the end.

    What an interrupted run left in the folder is removed first; on an error nothing is left.

    Raises:
        OutputError: if the folder cannot be made, is not ours, or is in use.
    """
    folder = staging_folder(output)
    with held([output]):
        try:
            _clear(folder)
            unfinished = folder / output.name
            yield unfinished
            try:
                sync(unfinished)
                publish(unfinished, output, raster=raster)
            except OSError as error:
                raise cannot_write(output, error) from error
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    for leftover in folder.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.name not in LOCK_FILES:
            leftover.unlink(missing_ok=True)


def check_space(output: Path, needed_bytes: int, *, certain: bool) -> None:
    """Compare what a run will keep beside its output for a while with the free space there.

    Args:
        output: the output.
        needed_bytes: what the run needs.
        certain: whether it needs exactly that; otherwise it is the most, and a shortage is only a warning.

    Raises:
        OutputError: if the space will not do.
    """
    free = shutil.disk_usage(output.absolute().parent).free
    if needed_bytes <= max(free, WORTH_A_CHECK_BYTES):
        return
    sizes = f"{needed_bytes / 2**30:.1f} GiB beside it, {free / 2**30:.1f} GiB are free"
    if certain:
        advice = "choose a folder with more, or map a part with --bounds"
        raise OutputError(f"needs {sizes}", where=str(output), advice=advice)
    log.warning("%s: may need %s; windows without valid pixels need none", output, sizes)


@contextmanager
def held(outputs: Iterable[Path]) -> Iterator[None]:
    """Keep other processes off outputs whose staging folders no journal holds.

    Raises:
        OutputError: if another process works on one, or its staging folder cannot be made or is not ours.
    """
    with ExitStack() as stack:
        for output in outputs:
            stack.enter_context(_held(staging_folder(output)))
        yield


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        refuse_foreign(folder)
        folder.mkdir(exist_ok=True)
        try:
            lock = Lock(folder)
        except OSError:
            remove_if_empty(folder)
            raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()
        remove_if_empty(folder)
