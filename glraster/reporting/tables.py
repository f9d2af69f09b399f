"""Tables of figures, and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence

from glraster.metrics.bootstrap import Interval
from glraster.reporting.markup import Content, Markup, element


def section(name: str, title: str, *content: Content) -> Markup:
    """A section of a page with its heading."""
    return element("section", element("h2", title), *content, id=name)


def table(heads: Sequence[str], rows: Sequence[Sequence[Content]], kind: str) -> Markup:
    """A table whose first cells are row headings."""
    head = element("tr", *(element("th", name, scope="col") if name else element("td") for name in heads))
    body = [element("tr", element("th", row[0], scope="row"), *(element("td", c) for c in row[1:])) for row in rows]
    style = f"--figures:{max(1, len(heads) - 2)}"
    drawn = element("table", element("thead", head), element("tbody", *body), class_=f"figures {kind}", style=style)
    return element("div", drawn, class_="scroll")


def interval_text(interval: Interval | None) -> str:
    """An interval in words; nothing where there is none."""
    return "" if interval is None else f"{interval.low:.3f} – {interval.high:.3f}"
