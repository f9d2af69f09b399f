"""Render a report as one HTML file that needs no other.

What a reader sees is in `templates/` (HTML) and `assets/` (style and script).
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from glraster.reporting import formatting, sections
from glraster.reporting.pictures import WRONG_COLOR, confidence_colors
from glraster.reporting.records import Page


def render(page: Page) -> str:
    """Render a page; its style, script and pictures are inside it, and it may load nothing.

    All text from data is escaped. Should some become markup all the same, the page's content-security policy lets no
    script run but the one whose hash it names, and no picture load but those inside the page.
    """
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            style=_asset("report.css"),
            script=script,
            cards=sections.cards(page),
            controls=sections.map_controls(page),
            charts=sections.training_charts(page.training),
            confusion=sections.confusion_cells(page.evaluation),
            remarks=sections.remarks(page.evaluation),
            histogram=sections.histogram(page),
            confidence_colors=confidence_colors(),
            wrong_color=WRONG_COLOR,
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("glraster.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "area": formatting.area,
        "css_color": formatting.css_color,
        "css_percent": formatting.css_percent,
        "grouped": formatting.grouped,
        "hectares": formatting.hectares,
        "ink": formatting.ink_on,
        "interval": sections.interval,
        "percent": formatting.percent,
        "score": formatting.score,
    }
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


def _asset(name: str) -> str:
    return files("glraster.reporting").joinpath("assets", name).read_text("utf-8")
