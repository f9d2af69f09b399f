"""Check a call of `vectorize` before anything is computed: options in, a job with an open mask out."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from glraster._version import __version__
from glraster.config import LandClass, class_color
from glraster.errors import SceneError, UsageError
from glraster.files import claim, staging_folder
from glraster.names import is_path
from glraster.raster.class_raster import Bounds, ClassRaster, ValueRaster
from glraster.raster.source import input_files
from glraster.vector.ground import Ground, ground_of
from glraster.vector.output import GEOJSON_DECIMALS, LON_LAT_FORMATS, Dissolver, LayerForm, ending_of
from glraster.vector.polygons import FloatArray, Placement, Reproject
from glraster.vector.simplify import Simplification

_LON_LAT = "OGC:CRS84"
_DEGREE_M = 111_320


@dataclass(frozen=True)
class VectorizeOptions:
    """How to vectorize.

    Attributes:
        simplify_m: tolerance of simplification in metres (map units without a CRS): corners whose triangle has an area
            below its square are cut. Borders stay shared, the total area stays the same. None: as traced.
        min_area_m2: patches below this area take the class of the neighbour with the longest common border.
        connectivity: 4, or 8 for one multipolygon of patches that touch at a corner.
        classes: names or numbers of the classes to write; default all.
        smooth: round the corners of simplified borders; without `simplify_m`, simplify by one pixel.
        dissolve: one multipolygon per class.
        dst_crs: CRS of the output; default the mask's, longitude and latitude for GeoJSON.
        layer: name of the layer; default the output's.
        confidence: a raster on the mask's grid, whose mean becomes a column.
        bounds: (left, bottom, right, top) in the mask's CRS; default the whole mask.
        catalog: a catalog that names the classes if the mask does not.
        overwrite: replace an output. resume: accepted after an interruption; the run starts anew.
        threads: number of threads that trace; default one for every two cores.
    """

    simplify_m: float | None = None
    min_area_m2: float | None = None
    connectivity: Literal[4, 8] = 4
    classes: tuple[str, ...] | None = None
    smooth: bool = False
    dissolve: bool = False
    dst_crs: str | None = None
    layer: str | None = None
    confidence: str | Path | None = None
    bounds: Bounds | None = None
    catalog: str | Path | None = None
    overwrite: bool = False
    resume: bool = False
    threads: int | None = None


class _Names(dict[int, str]):
    """Class name of every value; "class N" if it has none."""

    def __missing__(self, value: int) -> str:
        return f"class {value}"


@dataclass(frozen=True)
class VectorizeJob:
    """A checked call: open rasters, settings, the form of the output; `class_ids` None writes all classes."""

    mask: ClassRaster
    confidence: ValueRaster | None
    output: str
    options: VectorizeOptions
    classes: tuple[LandClass, ...]
    class_ids: frozenset[int] | None
    placement: Placement
    form: LayerForm
    simplification: Simplification | None

    @property
    def to_stdout(self) -> bool:
        return self.output == "-"

    @property
    def threads(self) -> int:
        return self.options.threads or max(1, (os.cpu_count() or 2) // 2)

    @contextmanager
    def collector(self) -> Iterator[Dissolver | None]:
        """Collects features until all are known; None if they are written as they come."""
        if not self.options.dissolve:
            yield None
            return
        staging = None if self.to_stdout else staging_folder(Path(self.output))
        with tempfile.TemporaryDirectory(prefix="dissolve-", dir=staging) as folder:
            yield Dissolver(Path(folder))

    def classes_of(self, values: Iterable[int]) -> list[LandClass]:
        """These values as classes, ascending; one without a name is called "class N"."""
        named = {c.id: c for c in self.classes}
        return [
            named.get(value) or LandClass(value, self.form.names[value], class_color(value)) for value in sorted(values)
        ]


_SQUARE = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))


@contextmanager
def open_job(mask_path: str, output: str, options: VectorizeOptions | None) -> Iterator[VectorizeJob]:
    """Open the rasters and check the call, the cheapest mistakes first."""
    options = options or VectorizeOptions()
    _check_numbers(options)
    ending = ending_of(output)
    if output != "-":
        inputs = input_files(mask_path, options.confidence, options.catalog)
        claim(Path(output), inputs=inputs, overwrite=options.overwrite)
    with ExitStack() as stack:
        mask = stack.enter_context(ClassRaster(mask_path, options.bounds))
        _check_transform(mask)
        confidence = None
        if options.confidence is not None:
            confidence = stack.enter_context(ValueRaster(str(options.confidence)))
            _check_same_grid(mask, confidence)
        classes = mask.named or _catalog_classes(options)
        target, reproject = _target_crs(mask, options.dst_crs, ending)
        multi = options.connectivity == 8 or options.dissolve
        ground = ground_of(mask.crs, mask.transform, mask.region)
        pixel_m = pixel_side_m(mask, ground)
        form = LayerForm(
            ending=ending,
            layer=options.layer or (Path(output).stem if output != "-" else "polygons"),
            crs=target,
            names=_Names({c.id: c.name for c in classes}),
            multi=multi,
            confidence=confidence is not None,
            metadata=_metadata(mask, options),
            decimals=_decimals(pixel_m),
        )
        how = _simplification(options, pixel_m)
        reach_px = how.reach_px if how and how.smooth else 0.0
        placement = Placement(mask.transform, ground, reproject, multi and not options.dissolve, reach_px)
        class_ids = _class_ids(options.classes, classes)
        yield VectorizeJob(mask, confidence, output, options, classes, class_ids, placement, form, how)


def pixel_side_m(mask: ClassRaster, ground: Ground) -> float:
    """Side of a square as large as a pixel at the mask's centre, in metres, or in map units if those are unknown."""
    row, column = mask.region.top + mask.region.height / 2, mask.region.left + mask.region.width / 2
    xy = np.array([mask.transform @ (column + i, row + j) for i, j in _SQUARE])
    area = float(ground.measure(xy, np.array([0, len(xy)]))[0][0])
    return math.sqrt(abs(area) if math.isfinite(area) else abs(mask.transform.determinant))


def _check_transform(mask: ClassRaster) -> None:
    if not 0 < abs(mask.transform.determinant) < math.inf:
        raise SceneError("its transform gives pixels no area; give it another (rio edit-info)", where=mask.path)


def _decimals(pixel_m: float) -> int:
    """Decimals of degrees that tell points a twentieth of a pixel apart, at least as many as GDAL writes."""
    return max(GEOJSON_DECIMALS, math.ceil(math.log10(20 * _DEGREE_M / pixel_m)))


def _simplification(options: VectorizeOptions, pixel_m: float) -> Simplification | None:
    if options.simplify_m is None and not options.smooth:
        return None
    return Simplification(1.0 if options.simplify_m is None else options.simplify_m / pixel_m, options.smooth)


def _check_numbers(options: VectorizeOptions) -> None:
    for name, value in (("--simplify", options.simplify_m), ("--min-area", options.min_area_m2)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} {value:g} must be positive")
    if options.connectivity not in (4, 8):
        raise UsageError(f"--connectivity {options.connectivity} must be 4 or 8")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads} must be at least 1")


def _check_same_grid(mask: ClassRaster, other: ValueRaster) -> None:
    if other.shape != mask.shape or not other.transform.almost_equals(mask.transform, precision=1e-6):
        raise SceneError(f"{other.path}: does not lie on the grid of {mask.path}; give the confidence of the same map")


def _catalog_classes(options: VectorizeOptions) -> tuple[LandClass, ...]:
    if options.catalog is None:
        return ()
    from glraster.catalog import load_catalog

    return load_catalog(options.catalog).label_classes


def _class_ids(texts: tuple[str, ...] | None, classes: tuple[LandClass, ...]) -> frozenset[int] | None:
    if texts is None:
        return None
    by_name = {c.name: c.id for c in classes}
    class_ids = set()
    for text in texts:
        if text in by_name:
            class_ids.add(by_name[text])
        elif text.lstrip("-").isdecimal() and (not classes or int(text) in by_name.values()):
            class_ids.add(int(text))
        else:
            near = get_close_matches(text, by_name, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            names = ", ".join(by_name) or "numbers only: the mask names no classes"
            raise UsageError(f"--classes {text}: no such class; {hint}the mask has {names}")
    return frozenset(class_ids)


def _target_crs(mask: ClassRaster, dst_crs: str | None, ending: str) -> tuple[str | None, Reproject | None]:
    """The CRS of the output as text, and how to get there."""
    name = dst_crs
    if ending in LON_LAT_FORMATS:
        if dst_crs is not None and not _is_lon_lat(_crs(dst_crs)):
            raise UsageError(f"--dst-crs {dst_crs}: GeoJSON has longitude and latitude by definition; leave it out")
        name = _LON_LAT if mask.crs is not None else None
    if name is None:
        return (None if mask.crs is None else _text(mask.crs)), None
    target = _crs(name)
    if mask.crs is None:
        raise UsageError(f"--dst-crs {name}: {mask.path} has no CRS to start from; assign one (rio edit-info --crs)")
    if target == mask.crs:
        return _text(mask.crs), None
    return _text(target), _reprojection(mask, target)


def _is_lon_lat(crs: CRS) -> bool:
    return crs in (CRS.from_epsg(4326), CRS.from_user_input(_LON_LAT))


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise UsageError(f"--dst-crs {text}: is no CRS; write it as EPSG:NUMBER") from error


def _text(crs: CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())


def _reprojection(mask: ClassRaster, target: CRS) -> Reproject:
    source = mask.crs

    def reproject(xy: FloatArray) -> FloatArray:
        try:
            moved = np.array(transform_points(source, target, xy[:, 0], xy[:, 1])).T
        except RasterioError as error:
            raise SceneError(f"{mask.path}: cannot be brought to {_text(target)}: {error}") from error
        if not np.isfinite(moved).all():
            raise SceneError(f"{mask.path}: a part of it lies outside of {_text(target)}; choose another --dst-crs")
        return np.ascontiguousarray(moved)

    return reproject


def _metadata(mask: ClassRaster, options: VectorizeOptions) -> dict[str, str]:
    model = mask.tags.get("GLRASTER_MODEL")
    settings = {
        "simplify_m": options.simplify_m,
        "min_area_m2": options.min_area_m2,
        "connectivity": options.connectivity,
        "smooth": options.smooth or None,
        "dissolve": options.dissolve or None,
        "bounds": options.bounds,
        "confidence": None if options.confidence is None else Path(options.confidence).name,
    }
    tags = {f"GLRASTER_{key.upper()}": str(value) for key, value in settings.items() if value is not None}
    name = Path(mask.path).name if is_path(mask.path) else mask.path
    if model:
        tags = {"GLRASTER_MODEL": model, **tags}
    return {"GLRASTER_SOURCE": name, "GLRASTER_VERSION": __version__, **tags}
