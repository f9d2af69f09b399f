"""What makes a short command short: no package is loaded that nobody uses, and no garbage is sought among modules.

A `vectorize` of 2000 x 2000 px works for 0.1 s. Its process took 1.3 processor seconds, and takes 0.8:

- pyogrio imports pandas, geopandas and pyproj, numba the linear algebra of SciPy, rasterio boto3, only to know whether
  they are installed.
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

PUT_OFF = ("boto3", "geopandas", "pandas", "pyproj", "scipy", "scipy.linalg", "scipy.linalg.cython_blas")

_replacing = threading.Lock()


class _StandIn(ModuleType):
    """What an importing package holds instead of a module; asked for an attribute, it passes the module's on."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, None)

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version(self.__name__)
        with _replacing:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def loading() -> Iterator[None]:
    """Around a command's first imports: the packages in `PUT_OFF` are not loaded by others that import them.

    After the block the next import of such a package is an ordinary one: no stand-in is left in `sys.modules`.
    """
    if gc.get_freeze_count():  # once in a process
        yield
        return
    stand_ins = {name: _StandIn(name) for name in PUT_OFF if _is_absent(name.partition(".")[0])}
    sys.modules.update(stand_ins)
    gc.disable()
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        gc.freeze()
        gc.enable()


def _is_absent(package: str) -> bool:
    return package not in sys.modules and importlib.util.find_spec(package) is not None


def end_quickly() -> None:
    """Seek no garbage when the process ends; objects are still finalized as their references go."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
