"""The part of a page where the map is looked at: layers, a handle that swipes between two, a legend."""

from __future__ import annotations

from collections.abc import Mapping

from glraster.config import LandClass
from glraster.reporting.figures import css_color, ink_on, percent
from glraster.reporting.markup import Markup, data_block, element, text
from glraster.reporting.pictures import WRONG_COLOR, confidence_colors, distinct
from glraster.reporting.records import AreaRow, Layer, MapView

DATA_ID = "map-data"

_CLASSED = ("map", "truth")


def viewer(view: MapView, areas: tuple[AreaRow, ...]) -> Markup:
    """Layers under a swipe handle, controls, and a legend that turns classes off and on."""
    layers = [_layer(layer, view) for layer in view.layers]
    stage = element("div", *layers, class_="stage")
    window = element(
        "div",
        stage,
        element(
            "div",
            element("span", "◂ ▸", aria_hidden="true"),
            class_="handle",
            tabindex=0,
            role="slider",
            aria_label="Swipe between the left and the right layer",
            aria_valuemin=0,
            aria_valuemax=100,
            aria_valuenow=50,
        ),
        element("span", "", class_="tag left", aria_hidden="true"),
        element("span", "", class_="tag right", aria_hidden="true"),
        class_="viewer",
        tabindex=0,
        role="group",
        aria_label="Map. Arrow keys move it, plus and minus zoom, 0 shows all.",
    )
    readout = element("p", "", class_="readout", aria_live="off")
    return text(
        _controls(view),
        element("div", window, _legend(view, areas), class_="map-row", style=f"--ratio:{view.width / view.height:.5f}"),
        readout,
        element(
            "p",
            "Drag the handle to swipe. Zoom with the buttons, + and −, two fingers, or Ctrl and the wheel; then drag "
            "to move.",
            class_="hint",
        ),
        data_block(DATA_ID, _data(view)),
    )


def _layer(layer: Layer, view: MapView) -> Markup:
    picture = element("img", src=layer.picture.uri, alt=layer.title, draggable="false")
    chips = None
    if layer.kind == "map":
        colors = distinct([c.color for c in view.classes])
        chips = element(
            "div",
            *(
                element(
                    "span",
                    view.classes[spot.index].id,
                    data_index=spot.index,
                    style=f"top:{100 * spot.y:.2f}%;left:{100 * spot.x:.2f}%;"
                    f"background:{css_color(colors[spot.index])};color:{ink_on(colors[spot.index])}",
                )
                for spot in view.spots
            ),
            class_="chips",
            aria_hidden="true",
        )
    caption = element("span", layer.title, class_="caption", aria_hidden="true")
    return element("div", picture, chips, caption, class_=f"layer {layer.kind}", data_layer=layer.kind)


def _controls(view: MapView) -> Markup:
    kinds = [layer.kind for layer in view.layers]
    left = "scene" if "scene" in kinds else next((k for k in ("truth", "confidence") if k in kinds), "map")
    chosen = {"left": left, "right": "map"}
    selects = [
        element(
            "label",
            side.capitalize(),
            element(
                "select",
                *(
                    element("option", layer.title, value=layer.kind, selected=layer.kind == chosen[side])
                    for layer in view.layers
                ),
                data_side=side,
            ),
        )
        for side in ("left", "right")
    ]
    opacity = element(
        "label", "Opacity", element("input", type="range", min=0, max=100, value=100 if left != "scene" else 85,
                                    data_control="opacity")
    )  # fmt: skip
    numbers = element(
        "label",
        element("input", type="checkbox", checked=True, data_control="numbers"),
        "Class numbers",
        class_="check",
    )
    buttons = element(
        "span",
        element("button", "−", type="button", data_control="out", aria_label="Zoom out"),
        element("button", "+", type="button", data_control="in", aria_label="Zoom in"),
        element("button", "All", type="button", data_control="all", aria_label="Show all of the map"),
        element("button", "Full screen", type="button", data_control="full"),
        class_="buttons",
    )
    return element("div", *selects, opacity, numbers, buttons, class_="controls")


def _legend(view: MapView, areas: tuple[AreaRow, ...]) -> Markup:
    total = sum(row.pixels for row in areas)
    shares = {row.land.id: row.pixels / total for row in areas} if total else {}
    entries = [_legend_entry(i, c, shares) for i, c in enumerate(view.classes)]
    kinds = {layer.kind for layer in view.layers}
    extra = []
    if "confidence" in kinds:
        stops = ",".join(css_color(color) for color in confidence_colors())
        strip = element("span", class_="ramp", style=f"background:linear-gradient(90deg,{stops})")
        extra.append(element("div", "Confidence", element("span", "0", strip, "100 %", class_="ramp-row")))
    if "errors" in kinds:
        swatch = element("span", class_="swatch", style=f"background:{css_color(WRONG_COLOR)}")
        extra.append(element("div", swatch, "Map and truth differ", class_="plain"))
    return element(
        "div",
        element("h3", "Classes"),
        element("ul", *entries),
        element("p", "Click a class to hide or show it.", class_="hint"),
        element("div", *extra, class_="keys") if extra else None,
        class_="legend",
    )


def _legend_entry(index: int, land: LandClass, shares: Mapping[int, float]) -> Markup:
    swatch = element(
        "span", land.id, class_="swatch", style=f"background:{css_color(land.color)};color:{ink_on(land.color)}"
    )
    share = element("span", percent(shares.get(land.id)), class_="share")
    button = element(
        "button", swatch, element("span", land.name, class_="name"), share, type="button", aria_pressed="true",
        data_index=index,
    )  # fmt: skip
    return element("li", button)


def _data(view: MapView) -> dict[str, object]:
    """What the script must know."""
    colors = distinct([c.color for c in view.classes])
    return {
        "classes": [{"name": c.name, "color": list(color)} for c, color in zip(view.classes, colors, strict=True)],
        "classed": [layer.kind for layer in view.layers if layer.kind in _CLASSED],
        "titles": {layer.kind: layer.title for layer in view.layers},
        "height": view.height,
        "width": view.width,
        "crs": view.crs,
        "transform": list(view.transform),
        "metresPerPx": view.metres_per_px,
    }
