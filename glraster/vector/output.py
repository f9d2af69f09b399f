"""Write features to vector files: by GDAL's drivers from Arrow batches, or as GeoParquet."""

from __future__ import annotations

import json
import sqlite3
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glraster.config import LandClass
from glraster.errors import OutputError, UsageError
from glraster.vector.polygons import Features, FloatArray

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".geojsonl": "GeoJSONSeq", ".parquet": ""}
LON_LAT_FORMATS = (".geojson", ".geojsonl")
"""Formats whose coordinates are longitudes and latitudes by their definition."""
GEOJSON_DECIMALS = 7
"""Decimals of degrees that GDAL writes by itself: about a centimetre."""
_HEAD = struct.Struct("<BII")
_MULTIPOLYGON = 6
_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT
    (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
_CONTENTS = """
INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'layer_styles')
"""
_STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML,
    styleSLD, useAsDefault, description, owner)
VALUES ('', '', ?, 'geometry', 'land cover', ?, '', 1, 'classes of the map', '')
"""
_OUTLINE = "0,0,0,60"


@dataclass(frozen=True)
class LayerForm:
    """Form of a vector file.

    Attributes:
        ending: of the format, see `DRIVERS`. layer: its name. crs: text that PROJ reads, or None.
        names: class name of every pixel value.
        multi: a layer of multipolygons. confidence: a column of that name. metadata: by key.
        decimals: of the coordinates in GeoJSON.
    """

    ending: str
    layer: str
    crs: str | None
    names: Mapping[int, str]
    multi: bool = False
    confidence: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    decimals: int = GEOJSON_DECIMALS

    @property
    def geometry_type(self) -> str:
        return "MultiPolygon" if self.multi else "Polygon"

    def schema(self) -> pa.Schema:
        geometry = pa.field("geometry", pa.large_binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
        confidence = [("confidence", pa.float64())] if self.confidence else []
        columns = [("class_id", pa.int32()), ("class_name", pa.string())]
        return pa.schema([*columns, ("area_m2", pa.float64()), ("perimeter_m", pa.float64()), *confidence, geometry])


def ending_of(output: str) -> str:
    """Ending of the format of an output; `-` is GeoJSON line by line.

    Raises:
        UsageError: if no format has the name's ending.
    """
    ending = ".geojsonl" if output == "-" else Path(output).suffix.lower()
    if ending not in DRIVERS:
        raise UsageError(f"{output}: its ending names no format; use {', '.join(DRIVERS)}, or - for GeoJSON lines")
    return ending


def record_batch(batch: Features, form: LayerForm, confidence: Any = None) -> pa.RecordBatch:
    """Features as an Arrow batch; the geometries are not copied."""
    values, index = np.unique(batch.value, return_inverse=True)
    columns = [
        _column(batch.value, pa.int32()),
        _repeated([form.names[int(value)] for value in values], index),
        _column(batch.area_m2, pa.float64()),
        _column(batch.perimeter_m, pa.float64()),
        *([] if confidence is None else [_column(confidence, pa.float64())]),
        pa.Array.from_buffers(
            pa.large_binary(), len(batch), [None, pa.py_buffer(batch.offsets), pa.py_buffer(batch.wkb)]
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=form.schema())


def _repeated(texts: list[str], index: npt.NDArray[np.intp]) -> pa.Array:
    """Text `index[i]` in row i. Arrow's own `take` would import all of its compute functions: 0.1 s."""
    encoded = [text.encode() for text in texts]
    sizes = np.array([len(text) for text in encoded], np.int32)[index]
    width = max(map(len, encoded))
    table = np.frombuffer(b"".join(text.ljust(width) for text in encoded), np.uint8).reshape(-1, width)
    letters = table[index][np.arange(width) < sizes[:, None]]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(index), [None, pa.py_buffer(offsets), pa.py_buffer(letters)])


def _column(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of the same memory, null where a value is NaN; `pa.array` would import pandas first."""
    finite = np.isfinite(values)
    valid = None if finite.all() else pa.py_buffer(np.packbits(finite, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def write(batches: Iterator[pa.RecordBatch], path: str, form: LayerForm) -> None:
    """Write all batches to a new file. Memory: one batch, and what the driver needs for its index.

    Raises:
        OutputError: if the file cannot be written.
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
        raise OutputError(f"cannot be written: {' '.join(str(error).split())}", where=path) from error
    if failures:
        raise failures[0]


def _driver_options(form: LayerForm) -> dict[str, Any]:
    if form.ending == ".gpkg":
        return {
            "dataset_options": {"VERSION": "1.3"},  # GDAL before 3.7 warns of 1.4 whenever the file is opened
            "layer_options": {"SPATIAL_INDEX": "YES", "GEOMETRY_NAME": "geometry"},
            "layer_metadata": dict(form.metadata),
        }
    if form.ending not in LON_LAT_FORMATS:
        return {}
    rfc7946 = {"RFC7946": "YES"} if form.ending == ".geojson" else {}
    precision = {"COORDINATE_PRECISION": str(form.decimals)} if form.decimals > GEOJSON_DECIMALS else {}
    return {"layer_options": rfc7946 | precision}


def _noting(batches: Iterator[pa.RecordBatch], failures: list[BaseException]) -> Iterator[pa.RecordBatch]:
    """Pass batches on and note the exception that ends them: Arrow's C interface turns it into a text."""
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
        raise OutputError(f"cannot be written: {' '.join(str(error).split())}", where=path) from error


def _projjson(crs: str | None) -> Any:
    if crs is None:
        return None
    from pyproj import CRS

    return CRS.from_user_input(crs).to_json_dict()


@dataclass
class _Class:
    polygons: int = 0
    area_m2: float = 0.0
    perimeter_m: float = 0.0
    weighted: float = 0.0
    weight: float = 0.0


@dataclass
class Dissolver:
    """Collects the polygons of every class in a file in `folder`. Memory: the largest class, at the end."""

    folder: Path
    _classes: dict[int, _Class] = field(default_factory=dict)

    def add(self, batch: Features, confidence: FloatArray | None) -> None:
        """Add polygons; confidences are averaged by area."""
        for value in np.unique(batch.value).tolist():
            rows = np.flatnonzero(batch.value == value)
            members, total = batch.take(rows), self._classes.setdefault(value, _Class())
            total.polygons += len(members)
            total.area_m2 += float(members.area_m2.sum())
            total.perimeter_m += float(members.perimeter_m.sum())
            if confidence is not None:
                measured = np.isfinite(confidence[rows])
                weights = np.where(np.isfinite(members.area_m2), members.area_m2, 1.0)[measured]
                total.weighted += float((confidence[rows][measured] * weights).sum())
                total.weight += float(weights.sum())
            with self._file(value).open("ab") as stream:
                stream.write(members.wkb.data)

    def features(self) -> Iterator[tuple[Features, FloatArray]]:
        """One multipolygon for every class, with its mean confidence."""
        for value, total in sorted(self._classes.items()):
            head = np.frombuffer(_HEAD.pack(1, _MULTIPOLYGON, total.polygons), np.uint8)
            wkb = np.empty(len(head) + self._file(value).stat().st_size, np.uint8)
            wkb[: len(head)] = head
            with self._file(value).open("rb") as stream:
                stream.readinto(wkb[len(head) :].data)
            self._file(value).unlink()
            values: npt.NDArray[np.int32] = np.array([value], np.int32)
            measures = np.array([total.area_m2]), np.array([total.perimeter_m])
            mean = total.weighted / total.weight if total.weight else np.nan
            yield Features(values, values, *measures, wkb, np.array([0, len(wkb)])), np.array([mean])

    def _file(self, value: int) -> Path:
        return self.folder / f"class_{value}.wkb"


def add_style(path: Path, layer: str, classes: Sequence[LandClass]) -> None:
    """Add a default style to a layer of a GeoPackage, which QGIS applies when it opens the layer."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(_TABLE)
        database.execute(_CONTENTS)
        database.execute(_STYLE, (layer, style_qml(classes)))


def style_qml(classes: Sequence[LandClass]) -> str:
    """A QGIS style: one category for every class, by the column `class_id`."""
    categories = "".join(
        f'<category render="true" type="long" value="{c.id}" symbol="{i}" label={quoteattr(c.name)} uuid="{i}"/>'
        for i, c in enumerate(classes)
    )
    symbols = "".join(_symbol(i, c) for i, c in enumerate(classes))
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.28" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="class_id" forceraster="0" symbollevels="0" enableorderby="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2>"
        "<blendMode>0</blendMode><featureBlendMode>0</featureBlendMode><layerGeometryType>2</layerGeometryType></qgis>"
    )


def _symbol(name: int, land_class: LandClass) -> str:
    red, green, blue = land_class.color
    values = {
        "color": f"{red},{green},{blue},255",
        "style": "solid",
        "outline_color": _OUTLINE,
        "outline_style": "solid",
        "outline_width": "0.1",
        "outline_width_unit": "MM",
        "joinstyle": "round",
    }
    options = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in values.items())
    return (
        f'<symbol type="fill" name="{name}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0"><Option type="Map">{options}</Option></layer>'
        "</symbol>"
    )
