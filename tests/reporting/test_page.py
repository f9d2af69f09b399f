"""A rendered page: nothing from data becomes markup, and charts show the lines that they are given."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glraster.config import LandClass
from glraster.reporting.charts import Line, confidence_columns, heat_map, line_chart
from glraster.reporting.page import render
from glraster.reporting.pictures import photo
from glraster.reporting.records import AreaRow, MapLayer, MapView, Page, Training, TrainingStage, Validation

NASTY = ["<script>alert(1)</script>", '" onload="alert(1)', "</style><b>", "' x='", "&lt;", "]]>", "<!--", "\u2028",
         "{{ 7 * 7 }}", "{% raw %}"]  # fmt: skip
PLAIN = "name"


class Reader(HTMLParser):
    """What a browser makes of a page: its tags with attributes, its words, and the values for its script."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.data, self._tag = [], [], "", ""

    def handle_starttag(self, tag, attrs):
        self._tag = "data" if ("type", "application/json") in attrs else tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):  # noqa: ARG002
        self._tag = ""

    def handle_data(self, data):
        if self._tag == "data":
            self.data += data
        elif self._tag not in ("style", "script"):
            self.words.append(data.strip())


def read(page):
    reader = Reader()
    reader.feed(render(page))
    reader.close()
    return reader


def page_of(text):
    """A page with that text wherever data give one."""
    land = LandClass(3, text, (200, 30, 30))
    picture = photo(np.zeros((4, 6, 3), np.uint8))
    view = MapView((MapLayer("map", text, picture),), (land,), 4, 6, text, (1, 0, 0, 0, -1, 0), None)
    stage = TrainingStage(text, ((1, 2.0), (2, 1.0)), (Validation(text, 2, 0.5, (0.5,)),))
    return Page(
        title=text,
        subtitle=text,
        view=view,
        areas=(AreaRow(land, 24, None),),
        training=Training((stage,), (land,), ((text, picture),)),
        provenance={text: text},
    )


@pytest.mark.parametrize("text", NASTY)
def test_text_from_data_adds_no_tag_and_no_attribute(text):
    nasty, plain = read(page_of(text)), read(page_of(PLAIN))
    assert [(tag, list(attrs)) for tag, attrs in nasty.tags] == [(tag, list(attrs)) for tag, attrs in plain.tags]
    assert json.loads(nasty.data)["classes"] == [{"name": text, "color": [200, 30, 30]}]
    assert "<" not in nasty.data


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_text_from_data_comes_back_as_it_was(text):
    reader = read(replace(page_of(PLAIN), title=text))
    assert text.strip() in reader.words


def test_a_chart_draws_each_line_from_its_first_to_its_last_point():
    lines = [Line("up", "#000", ((0, 0), (10, 1))), Line("down", "#111", ((0, 1), (5, math.nan), (10, 0)))]
    chart = line_chart("title", [*lines, Line("empty", "#222", ())], "step", top=1.0)
    left, right, top, bottom = chart.left, chart.right, chart.top, chart.bottom
    assert [curve.points for curve in chart.curves] == [((left, bottom), (right, top)), ((left, top), (right, bottom))]
    assert [label.text for label in chart.labels] == ["up", "down"]
    assert line_chart("title", [Line("empty", "#222", ((1, math.inf),))], "step") is None


def test_labels_of_lines_that_end_together_stand_apart_inside_the_chart():
    chart = line_chart("title", [Line(str(i), "#000", ((0, 0), (1, 0.001 * i))) for i in range(8)], "step", top=1.0)
    places = [label.y for label in chart.labels]
    assert min(np.diff(places)) >= 12
    assert max(places) <= chart.height


def test_columns_of_a_histogram_count_every_pixel_once():
    columns = confidence_columns([*range(100), 1000])
    assert sum(column.share for column in columns) == pytest.approx(1)
    assert max(columns, key=lambda column: column.height) == columns[-1]
    assert (columns[0].low, columns[-1].low, columns[-1].high) == (0, 95, 100)


def test_cells_of_a_confusion_matrix_are_shares_of_their_row():
    counts = np.array([[75, 25, 0], [0, 0, 0], [1, 1, 9998]])
    cells = heat_map(counts, counts.astype(float))
    assert [[cell.text for cell in row] for row in cells] == [["75", "25", "0"], ["0"] * 3, ["<0.1", "<0.1", "100"]]
    assert [cell.count for cell in cells[2]] == [1, 1, 9998]
    assert cells[0][0].color != cells[0][1].color
