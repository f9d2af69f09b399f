"""What the tests of the network share: the authors' checkpoints made from a seed, and models imported from them."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from model.official_inputs import write_official

from glraster.model.glnet import GLNet
from glraster.model.official import import_official


@pytest.fixture(autouse=True)
def _tidy(tmp_path: Path) -> Iterator[None]:
    """Model files are large, and pytest keeps the folders of three runs."""
    yield
    shutil.rmtree(tmp_path)


Import = Callable[[int, str], GLNet]


@pytest.fixture(scope="session")
def official_files() -> Iterator[Callable[[int], dict[str, Path]]]:
    """The three checkpoints of seed 1 for a number of classes: `official_files(3)["g2l"]`."""
    with tempfile.TemporaryDirectory() as folder:

        @functools.cache
        def write(classes: int) -> dict[str, Path]:
            path = Path(folder, str(classes))
            path.mkdir()
            return write_official(path, 1, classes)

        yield write


@pytest.fixture(scope="session")
def official_model(official_files: Callable[[int], dict[str, Path]]) -> Import:
    """The model that those checkpoints give, by number of classes and mode: `official_model(3, "full")`."""

    @functools.lru_cache(maxsize=3)
    def build(classes: int, mode: str) -> GLNet:
        files = official_files(classes)
        paths = {"global": ("g", None, None), "local": (None, "g2l", None), "full": ("g", None, "l2g")}[mode]
        return import_official(*(part and files[part] for part in paths))[0]

    return build
