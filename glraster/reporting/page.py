"""A report as one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from glraster.reporting import judgement, sections
from glraster.reporting.markup import Markup, element, text
from glraster.reporting.records import Page
from glraster.reporting.tables import section
from glraster.reporting.viewer import viewer


def render(page: Page) -> str:
    """Write a page: styles, script and pictures are in it, and it may load nothing.

    The page's own policy allows pictures of its text and the one script whose hash it names, so that nothing from data
    could run even if it became markup.
    """
    style, script = (files(__package__).joinpath(f"assets/report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="glraster"),
        element("link", rel="icon", href="data:,"),
        element("title", page.title),
        element("style", Markup(style)),
    )
    main = element("main", *_sections(page))
    foot = element("footer", "Made with glraster. This file needs no network and no other file.")
    body = element("body", _top(page), main, foot, element("script", Markup(script)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _top(page: Page) -> Markup:
    kind = "Training" if page.training else "Land-cover map"
    return element(
        "header",
        element("p", kind, class_="kind"),
        element("h1", page.title),
        element("p", page.subtitle, class_="subtitle"),
        sections.headline(page),
    )


def _sections(page: Page) -> list[Markup]:
    view = page.view
    shown = section("map", "Map", viewer(view, page.areas)) if view else text()
    return [
        shown,
        sections.training(page.training),
        sections.areas(page),
        judgement.agreement(page.evaluation),
        judgement.worst_tiles(page.worst, placed=view is not None),
        sections.confidence(page.confidence, view.classes if view else ()),
        sections.provenance(page),
    ]
