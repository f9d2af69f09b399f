"""The folder names tell the truth: imports point downwards, heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {
    "glraster_cli": 6,
    "api": 6,
    "reporting": 5,
    "training": 4,
    "evaluation": 4,
    "segmentation": 3,
    "labels": 2,
    "vector": 2,
    "interchange": 2,
    "model": 1,
    "raster": 1,
    "catalog": 1,
    "cluster": 1,
    "metrics": 0,
    "files": 0,
    "names": 0,
    "locks": -1,
    "errors": -2,
    "process": 0,
    "runner": 0,
    "config": 0,
    "_version": 0,
}
MODULES = sorted([*ROOT.glob("glraster/**/*.py"), *ROOT.glob("cli/**/*.py")])
TORCH_ROOMS = {"interchange", "model", "segmentation", "training", "evaluation", "reporting"}


def room(module: str) -> str | None:
    """The room of a dotted module name; None for the top of the package and for other libraries."""
    parts = module.split(".")
    if parts[0] == "glraster_cli":
        return "glraster_cli"
    return parts[1] if parts[0] == "glraster" and len(parts) > 1 else None


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(["glraster_cli", *parts[1:]] if parts[0] == "cli" else parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "glraster" else {node.module}
        elif isinstance(node, ast.ImportFrom):
            assert path.is_relative_to(ROOT / "cli"), f"{path}: relative import"
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = room(name_of(path))
    if own is None:
        return
    for module in imports(path):
        other = room(module)
        if other is not None and other != own:
            assert LEVELS[other] < LEVELS[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    own, libraries = room(name_of(path)), {module.split(".")[0] for module in imports(path)}
    if own != "glraster_cli":
        assert "click" not in libraries
    if own not in TORCH_ROOMS:
        assert "torch" not in libraries
    if own == "model":
        assert "rasterio" not in libraries


def test_every_package_folder_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == {name_of(path) for path in MODULES if path.name == "__init__.py"}


def test_every_data_file_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = (path for path in ROOT.glob("glraster/**/*.*") if path.is_file() and path.suffix != ".py")
    data = {path for path in files if path.parent.name != "__pycache__"}
    assert data == {
        path for name, globs in listed.items() for glob in globs for path in (ROOT / name.replace(".", "/")).glob(glob)
    }


@pytest.mark.parametrize("call", ["import glraster", "from glraster_cli.main import main; main(['--help'])"])
def test_a_light_call_loads_no_heavy_library(call: str) -> None:
    script = (
        f"import sys\ntry:\n    exec({call!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'rasterio'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
