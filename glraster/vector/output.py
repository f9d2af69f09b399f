"""Write features to vector files: by GDAL's drivers from Arrow batches, or as GeoParquet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glraster.errors import OutputError, UsageError
from glraster.vector.polygons import Features

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".geojsonl": "GeoJSONSeq", ".parquet": ""}
LON_LAT_FORMATS = (".geojson", ".geojsonl")
"""Formats whose coordinates are longitudes and latitudes by their definition."""


@dataclass(frozen=True)
class LayerForm:
    """What a vector file is to be: `ending` of its format, layer name, CRS (text that PROJ knows), names of values.

    `multi` for a layer of multipolygons; `confidence` for a column of that name; `metadata` by key.
    """

    ending: str
    layer: str
    crs: str | None
    names: Mapping[int, str]
    multi: bool = False
    confidence: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def geometry_type(self) -> str:
        return "MultiPolygon" if self.multi else "Polygon"

    def schema(self) -> pa.Schema:
        geometry = pa.field("geometry", pa.large_binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
        confidence = [("confidence", pa.float64())] if self.confidence else []
        columns = [("class_id", pa.int32()), ("class_name", pa.string())]
        return pa.schema([*columns, ("area_m2", pa.float64()), ("perimeter_m", pa.float64()), *confidence, geometry])


def ending_of(output: str) -> str:
    """The format that an output's name asks for; `-` is line by line GeoJSON.

    Raises:
        UsageError: where there is no such format.
    """
    ending = ".geojsonl" if output == "-" else Path(output).suffix.lower()
    if ending not in DRIVERS:
        raise UsageError(f"{output}: its ending names no format; use {', '.join(DRIVERS)}, or - for GeoJSON lines")
    return ending


def record_batch(found: Features, form: LayerForm, confidence: Any = None) -> pa.RecordBatch:
    """Features as an Arrow batch; the geometries are not copied."""
    values, index = np.unique(found.value, return_inverse=True)
    names = _texts([form.names[int(value)] for value in values])
    columns = [
        _column(found.value, pa.int32()),
        names.take(_column(index.astype(np.int64), pa.int64())),
        _column(found.area_m2, pa.float64()),
        _column(found.perimeter_m, pa.float64()),
        *([] if confidence is None else [_column(confidence, pa.float64())]),
        pa.Array.from_buffers(
            pa.large_binary(), len(found), [None, pa.py_buffer(found.offsets), pa.py_buffer(found.wkb)]
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=form.schema())


def _texts(texts: list[str]) -> pa.Array:
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(raw), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))])


def _column(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of the same memory, null where a value is NaN; `pa.array` would import pandas first."""
    known = np.isfinite(values)
    valid = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def write(batches: Iterator[pa.RecordBatch], path: str, form: LayerForm) -> None:
    """Write all batches to a new file. Memory: one batch, and what the driver needs for its index.

    Raises:
        OutputError: where the file cannot be written.
    """
    if form.ending == ".parquet":
        _write_parquet(batches, path, form)
        return
    import pyogrio.raw
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

    failures: list[BaseException] = []
    reader = pa.RecordBatchReader.from_batches(form.schema(), _noting(batches, failures))
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that there is no CRS
            pyogrio.raw.write_arrow(
                reader,
                path,
                layer=form.layer,
                driver=DRIVERS[form.ending],
                geometry_name="geometry",
                geometry_type=form.geometry_type,
                crs=form.crs,
                **_driver_options(form),
            )
    except (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError, RuntimeError, OSError) as error:
        if failures:
            raise failures[0] from None
        raise OutputError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error
    if failures:
        raise failures[0]


def _driver_options(form: LayerForm) -> dict[str, Any]:
    if form.ending == ".gpkg":
        return {
            "layer_options": {"SPATIAL_INDEX": "YES", "GEOMETRY_NAME": "geometry"},
            "layer_metadata": dict(form.metadata),
        }
    if form.ending == ".geojson":
        return {"layer_options": {"RFC7946": "YES"}}
    return {}


def _noting(batches: Iterator[pa.RecordBatch], failures: list[BaseException]) -> Iterator[pa.RecordBatch]:
    """Pass batches on, and keep the error that ends them: Arrow's C interface would turn it into a text."""
    try:
        yield from batches
    except BaseException as error:
        failures.append(error)
        raise


def _write_parquet(batches: Iterator[pa.RecordBatch], path: str, form: LayerForm) -> None:
    """GeoParquet 1.1 with geometries in well-known binary."""
    from pyarrow import parquet

    schema = form.schema()
    plain = pa.schema([*list(schema)[:-1], pa.field("geometry", pa.binary())])
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [form.geometry_type]}
    column |= {"orientation": "counterclockwise", "crs": _projjson(form.crs)}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    metadata = {"geo": json.dumps(geo), **form.metadata}
    try:
        with parquet.ParquetWriter(path, plain.with_metadata(metadata), compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch.cast(plain).replace_schema_metadata(metadata))
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error


def _projjson(crs: str | None) -> Any:
    if crs is None:
        return None
    from pyproj import CRS

    return CRS.from_user_input(crs).to_json_dict()
