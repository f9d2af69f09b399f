"""A report in a real browser: it loads alone, the handle swipes, the legend hides classes, and data stays text."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from maps import disturbed, patches, write_map, write_truth
from rasters import landscape, write_raster

from glraster.config import LandClass
from glraster.reporting.report import ReportOptions, TruthOptions, write_report

ATTACK = "<script>alert(1)</script>"
CLASSES = (
    LandClass(3, ATTACK, (200, 30, 30)),
    LandClass(7, "</style><img src=x onerror=alert(2)>", (180, 150, 90)),
    LandClass(1, 'water" onclick="alert(3)', (40, 90, 200)),
)
H, W = 300, 420
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no browser is installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of a map with scene, truth and confidence, whose class names and file names attack the page."""
    folder = tmp_path_factory.mktemp("report")
    truth = patches(H, W, side=60)
    ids = disturbed(truth, 0.1)
    ids[:30, :40] = 255
    mask = write_map(folder / "map & <b>bold<i>.tif", ids, CLASSES)
    certainty = np.random.default_rng(1).integers(30, 101, (1, H, W), dtype=np.uint8)
    options = ReportOptions(
        scene=str(write_raster(folder / "scene.tif", landscape(H, W))),
        truth=str(write_truth(folder / "truth.tif", truth)),
        confidence=str(write_raster(folder / "confidence.tif", certainty, nodata=255)),
        meaning=TruthOptions(),
        command=f"glraster report '{ATTACK}'",
    )
    write_report(mask, folder / "report.html", options)
    return folder / "report.html"


class Visit:
    """A page that notes all it should not do."""

    def __init__(self, browser, file, **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.wrong.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self._note(r.url, file))
        self.page.goto(file.as_uri())

    def _note(self, url, file):
        if not (url.startswith("data:") or url == file.as_uri()):
            self.wrong.append(f"request: {url}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        assert kind is not None or self.wrong == []


@pytest.fixture
def visit(browser, report):
    with Visit(browser, report, viewport={"width": 1200, "height": 900}) as opened:
        opened.page.wait_for_selector("html.ready")
        yield opened


@pytest.fixture
def page(visit):
    return visit.page


def shown(page, layer):
    """The part of a layer's width that is seen, as (from, to) in per cent."""
    clip = page.evaluate(f"getComputedStyle(document.querySelector('.layer.{layer}')).clipPath")
    parts = clip.removeprefix("inset(").removesuffix(")").replace("px", "%").split(" ")
    top, right, bottom, left = (parts * 4)[:4] if len(parts) == 1 else [*parts, *parts][:4]
    assert (float(top.rstrip("%")), float(bottom.rstrip("%"))) == (0, 0)
    return float(left.rstrip("%")), 100 - float(right.rstrip("%"))


def test_report_loads_alone_and_without_a_word(page):
    assert page.locator(".viewer").is_visible()
    assert all(page.evaluate("[...document.images].map(i => i.naturalWidth > 0)"))
    assert page.title() == "map & <b>bold<i>.tif"


def test_names_from_data_stay_text(page):
    assert page.locator(".legend .name").all_inner_texts() == [c.name for c in CLASSES]
    assert page.locator("table.heat tbody th").first.inner_text().endswith(ATTACK)
    assert page.locator("h1").inner_text() == "map & <b>bold<i>.tif"
    assert ATTACK in page.locator(".facts").inner_text()
    assert page.locator("script").count() == 2
    assert page.locator("h1 *, .legend .name *, [onclick], [onerror], main b b").count() == 0


def test_page_lets_no_foreign_script_run_even_if_one_got_in(visit):
    visit.page.evaluate("const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
                        "document.body.append(s)")  # fmt: skip
    assert visit.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in line for line in visit.wrong)
    visit.wrong.clear()


def test_handle_swipes_with_the_pointer(page):
    handle = page.locator(".handle")
    assert shown(page, "map") == pytest.approx((50, 100), abs=1)
    box, window = handle.bounding_box(), page.locator(".viewer").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(window["x"] + window["width"] * 0.2, box["y"] + 40, steps=5)
    page.mouse.up()
    assert shown(page, "map") == pytest.approx((20, 100), abs=1)
    assert handle.get_attribute("aria-valuenow") == "20"


def test_handle_swipes_with_the_keyboard(page):
    handle = page.locator(".handle")
    handle.focus()
    for key, place in (("ArrowRight", 52), ("PageDown", 42), ("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert handle.get_attribute("aria-valuenow") == str(place)
    assert shown(page, "map") == (0, 100)


def test_any_two_layers_can_be_compared(page):
    page.select_option("[data-side=left]", "truth")
    page.select_option("[data-side=right]", "errors")
    assert shown(page, "truth") == pytest.approx((0, 50), abs=1)
    assert shown(page, "errors") == pytest.approx((50, 100), abs=1)
    assert not page.locator(".layer.map").is_visible()
    page.select_option("[data-side=right]", "truth")
    assert shown(page, "truth") == (0, 100)
    assert not page.locator(".handle").is_visible()


def test_legend_hides_a_class_and_shows_it_again(page):
    count = """(index) => {
      const canvas = document.querySelector('.layer.map canvas');
      if (!canvas) return null;
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const [r, g, b] = JSON.parse(document.getElementById('map-data').textContent).classes[index].color;
      let seen = 0;
      for (let i = 0; i < data.length; i += 4)
        if (data[i] === r && data[i+1] === g && data[i+2] === b && data[i+3] === 255) seen++;
      return seen;
    }"""
    button = page.locator(".legend button").nth(2)
    assert page.evaluate(count, 2) is None
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(count, 2) == 0
    assert page.evaluate(count, 0) > 1000
    assert page.locator(".layer.map .chips span[data-index='2']:visible").count() == 0
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate(count, 2) is None
    assert page.locator(".layer.map img").evaluate("i => getComputedStyle(i).visibility") == "visible"


def scale(page):
    return page.evaluate("new DOMMatrix(getComputedStyle(document.querySelector('.stage')).transform).a")


def test_map_zooms_and_moves(page):
    page.locator(".viewer").focus()
    page.keyboard.press("+")
    assert scale(page) == pytest.approx(1.5)
    page.locator("[data-control=in]").click()
    assert scale(page) == pytest.approx(2.25)
    place = "new DOMMatrix(getComputedStyle(document.querySelector('.stage')).transform).e"
    before = page.evaluate(place)
    window = page.locator(".viewer").bounding_box()
    page.mouse.move(window["x"] + 60, window["y"] + 60)
    page.mouse.down()
    page.mouse.move(window["x"] + 20, window["y"] + 60, steps=3)
    page.mouse.up()
    assert page.evaluate(place) == pytest.approx(before - 40, abs=1)
    page.locator(".viewer").focus()
    page.keyboard.press("0")
    assert scale(page) == 1


def test_swipe_keeps_its_place_on_the_screen_when_zoomed(page):
    for _ in range(3):
        page.locator("[data-control=in]").click()
    left, _ = shown(page, "map")
    stage, window = page.locator(".stage").bounding_box(), page.locator(".viewer").bounding_box()
    assert stage["x"] + stage["width"] * left / 100 == pytest.approx(window["x"] + window["width"] / 2, abs=2)


def test_opacity_fades_the_map(page):
    page.locator("[data-control=opacity]").fill("30")
    assert page.locator(".layer.map").evaluate("n => getComputedStyle(n).opacity") == "0.3"
    assert page.locator(".layer.scene").evaluate("n => getComputedStyle(n).opacity") == "1"


def test_pointer_tells_class_truth_and_place(page):
    window = page.locator(".viewer").bounding_box()
    page.mouse.move(window["x"] + window["width"] * 300.5 / W, window["y"] + window["height"] * 120.5 / H)
    text = page.locator(".readout").inner_text()
    assert "column 300, row 120" in text
    assert "Map: " in text
    assert "Truth: " in text
    assert "EPSG:32633" in text


def test_worst_tile_is_shown_on_the_map(page):
    page.locator(".tiles button").first.click()
    assert page.locator(".viewer").evaluate("n => n === document.activeElement")


def test_all_controls_are_reached_by_keyboard(page):
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.dataset.control || e.dataset.side || e.className)(document.activeElement)"))
    assert {"left", "right", "opacity", "numbers", "in", "out", "all", "viewer", "handle"} <= reached


def test_phone_needs_no_scrolling_sideways(browser, report):
    with Visit(browser, report, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as visit:
        visit.page.wait_for_selector("html.ready")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visit.page.locator(".viewer").bounding_box()["width"] > 320


def test_print_shows_every_layer_and_no_controls(page, tmp_path):
    page.emulate_media(media="print")
    for kind in ("scene", "map", "truth", "errors", "confidence"):
        box = page.locator(f".layer.{kind}").bounding_box()
        assert min(box["width"], box["height"]) > 100
    assert page.locator(".controls:visible, .handle:visible").count() == 0
    assert len(page.pdf(path=tmp_path / "report.pdf")) > 20_000


def test_map_is_there_without_scripts(browser, report):
    with Visit(browser, report, java_script_enabled=False) as visit:
        assert visit.page.locator(".layer.map img").is_visible()
        assert not visit.page.locator(".controls").is_visible()
