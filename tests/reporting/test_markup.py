"""Nothing from data becomes markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glraster.reporting.markup import Markup, data_block, element, text

NASTY = ["<script>alert(1)</script>", '" onload="alert(1)', "</style><b>", "' x='", "&lt;", "]]>", "<!--", "\u2028"]


class Reader(HTMLParser):
    """What a browser makes of a text: its tags with attributes, and its words."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.words = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def read(markup):
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text(), st.text())
def test_content_and_attributes_come_back_as_they_were(content, attribute):
    found = read(element("p", content, title=attribute))
    assert found.words == content
    assert found.tags == [("p", {"title": attribute})]


@pytest.mark.parametrize("text_", NASTY)
def test_json_in_a_page_cannot_end_its_block(text_):
    block = data_block("map-data", {"name": text_, text_: [text_]})
    inside = block.removeprefix('<script type="application/json" id="map-data">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == {"name": text_, text_: [text_]}


def test_markup_is_not_escaped_twice_and_nothing_is_left_out():
    inner = element("b", "a & b")
    assert text(inner, " < ", None, [1, "x", Markup("<i>")]) == "<b>a &amp; b</b> &lt; 1x<i>"


def test_attributes_are_named_as_in_html():
    assert element("label", class_="a", for_="b", aria_label="c", hidden=True, title=None, checked=False) == (
        '<label class="a" for="b" aria-label="c" hidden></label>'
    )
    assert element("img", src="data:,") == '<img src="data:,">'
