"""What makes a short command short: packages load when first used, and no garbage is collected among modules.

A `vectorize` of 2000 x 2000 px works for 0.1 s. It took 1.2 processor seconds, and takes 0.8:

- pyogrio imports pandas, geopandas and pyproj, numba the linear algebra of SciPy, rasterio boto3, only to know whether
  they are installed. `defer_imports` puts stand-ins for them.
- While modules load, the garbage collector goes through ever more objects that stay; when the process ends, once more.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

PACKAGES = ("boto3", "geopandas", "pandas", "pyproj", "scipy")
_WITH_SCIPY = ("scipy.linalg", "scipy.linalg.cython_blas")

_replacing = threading.Lock()


class _Deferred(ModuleType):
    """Stands in `sys.modules` for a module; asked for an attribute, it loads the module and passes everything on."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version(self.__name__)
        with _replacing:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def defer_imports() -> None:
    """Put stand-ins for packages that are installed and not loaded yet."""
    for package in PACKAGES:
        if package in sys.modules or importlib.util.find_spec(package) is None:
            continue
        for name in (package, *(_WITH_SCIPY if package == "scipy" else ())):
            sys.modules[name] = _Deferred(name)
            sys.modules[name].__spec__ = importlib.util.spec_from_loader(name, None)


@contextmanager
def loading() -> Iterator[None]:
    """Around a command's imports: put off `PACKAGES`, and never search what modules consist of for garbage."""
    if gc.get_freeze_count():  # once in a process
        yield
        return
    defer_imports()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def end_quickly() -> None:
    """Search for no garbage when the process ends; objects are still finalized as their references go."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
