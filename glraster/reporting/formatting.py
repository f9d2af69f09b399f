"""Numbers and colours as text, for the page and the preview."""

from __future__ import annotations

from glraster.reporting.pictures import Color

_THIN_SPACE = "\u202f"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def score(value: float | None) -> str:
    """A score from 0 to 1; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def grouped(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", _THIN_SPACE)


def hectares(area_m2: float) -> str:
    """An area in hectares with at least three significant digits."""
    value = area_m2 / 1e4
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 4
    return f"{value:,.{digits}f}".replace(",", _THIN_SPACE)


def area(area_m2: float) -> str:
    """An area with the unit that reads best: m², ha or km²."""
    if area_m2 < 1e4:
        return f"{grouped(area_m2)} m²"
    return f"{hectares(area_m2)} ha" if area_m2 < 1e7 else f"{area_m2 / 1e6:,.1f} km²".replace(",", _THIN_SPACE)


def css_color(color: Color) -> str:
    """A colour for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def css_percent(share: float) -> str:
    """A share, clipped to 0..1, as a length for a style sheet."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def ink_on(color: Color) -> str:
    """Black or white, whichever is easier to read on a colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"
