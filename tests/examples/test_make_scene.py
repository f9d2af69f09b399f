"""The demo scene: the same for the same seed, on one grid with its truth, and with something of every class."""

from collections.abc import Callable
from pathlib import Path

import make_scene
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from make_scene import main


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_scene.make_scene(tmp_path_factory.mktemp("scene") / "scene.tif", seed=3, width=1024, height=1024)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def make(seed: int, folder: str = "a") -> tuple[Path, Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return make_scene.make_scene(tmp_path / folder / f"{seed}.tif", seed=seed, width=512, height=600)

    return make


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()


def test_scene_and_truth_share_a_grid(scene: tuple[Path, Path]) -> None:
    with rasterio.open(scene[0]) as rgb, rasterio.open(scene[1]) as truth:
        assert (rgb.width, rgb.height, rgb.count) == (1024, 1024, 3)
        assert rgb.crs == truth.crs == rasterio.CRS.from_epsg(32633)
        assert rgb.transform == truth.transform
        assert rgb.res == (0.5, 0.5)
        assert (rgb.nodata, truth.nodata) == (0, 255)
        assert rgb.block_shapes[0] == (512, 512)
        assert {rgb.dtypes[0], truth.dtypes[0]} == {"uint8"}


def test_truth_names_and_colours_its_classes(scene: tuple[Path, Path]) -> None:
    with rasterio.open(scene[1]) as truth:
        names = [truth.tags(1)[f"CLASS_{number}"] for number in range(5)]
        assert names == ["building", "bare land", "road", "vegetation", "water"]
        assert len({truth.colormap(1)[number] for number in range(5)}) == 5


def test_every_class_covers_some_of_the_scene(scene: tuple[Path, Path]) -> None:
    truth = read(scene[1])
    assert set(np.unique(truth)) == {0, 1, 2, 3, 4, 255}
    shares = np.bincount(truth[truth != 255], minlength=5) / np.count_nonzero(truth != 255)
    assert shares.min() > 0.03


def test_truth_is_nodata_just_where_the_scene_is(scene: tuple[Path, Path]) -> None:
    rgb, truth = read(scene[0]), read(scene[1])[0]
    missing = truth == 255
    assert 0.005 < missing.mean() < 0.1
    assert (rgb[:, missing] == 0).all()
    assert rgb[:, ~missing].min() >= 1


def test_classes_look_different(scene: tuple[Path, Path]) -> None:
    rgb, truth = read(scene[0]).astype(float), read(scene[1])[0]
    red, green, blue = (np.array([band[truth == number].mean() for number in range(5)]) for band in rgb)
    building, bare, road, vegetation, water = range(5)
    assert (green - red)[vegetation] > 5
    assert (red - green)[bare] > 5
    assert red[water] < red[[building, bare, road]].min() - 20
    assert (red - blue)[bare] > (red - blue)[road] + 15


def test_same_seed_gives_the_same_pixels(small: Callable[..., tuple[Path, Path]]) -> None:
    for one, other in zip(small(5), small(5, "b"), strict=True):
        assert np.array_equal(read(one), read(other))


def test_another_seed_gives_another_layout(small: Callable[..., tuple[Path, Path]]) -> None:
    one, other = read(small(5)[1]), read(small(6)[1])
    assert (one != other).mean() > 0.3


def test_nothing_but_the_two_files_is_left(small: Callable[..., tuple[Path, Path]]) -> None:
    scene, truth = small(5)
    assert sorted(scene.parent.iterdir()) == sorted([scene, truth])


def test_a_failed_run_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr("scenery.render.Renderer.rows", fail)
    with pytest.raises(MemoryError):
        make_scene.make_scene(tmp_path / "scene.tif", width=256, height=256)
    assert [file.name for file in tmp_path.iterdir()] == ["scene_truth.tif"]


def test_scene_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make it 256 x 256 or larger"):
        make_scene.make_scene(tmp_path / "scene.tif", width=255, height=512)


def test_command_keeps_a_scene_unless_forced(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "new" / "scene.tif"), "--width", "256", "--height", "300"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "add --force" in refused.output
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0
