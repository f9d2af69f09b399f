"""How numbers read on a page."""

from __future__ import annotations

from collections.abc import Sequence

from glraster.reporting.pictures import Color


def percent(share: float | None, digits: int = 1) -> str:
    """A share as per cent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def score(value: float | None) -> str:
    """A score from 0 to 1; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def grouped(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def hectares(area_m2: float) -> str:
    """An area in hectares with three figures or more."""
    value = area_m2 / 1e4
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 4
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def area(area_m2: float) -> str:
    """An area in the unit that reads best."""
    if area_m2 < 1e4:
        return f"{grouped(area_m2)} m²"
    return f"{hectares(area_m2)} ha" if area_m2 < 1e7 else f"{area_m2 / 1e6:,.1f} km²".replace(",", "\u202f")


def css_color(color: Color) -> str:
    """A colour for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def ink_on(color: Color) -> str:
    """Black or white, whichever is easier to read on a colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def ticks(low: float, high: float, count: int = 5) -> Sequence[float]:
    """Round numbers that divide a range into about `count` parts."""
    if not high > low:
        return (low,)
    rough = (high - low) / count
    power = 10.0 ** int(f"{rough:e}".split("e")[1])
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = -(-low // step)
    return tuple(step * (first + i) for i in range(int((high - first * step) / step + 1e-9) + 1))
