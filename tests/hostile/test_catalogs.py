"""Catalogs from strangers: alias bombs, deep nests, tags that run code, and any value anywhere."""

from __future__ import annotations

import contextlib
import time

import pytest
import yaml
from hostile.campaigns import load_benchmark
from hostile.confined import assert_one_line, confined
from hostile.meddling import meddle
from hypothesis import given, settings
from hypothesis import strategies as st

from glraster.catalog import load_catalog
from glraster.errors import CatalogError

_LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
CASES = {
    "an alias bomb": _LAUGHS,
    "an alias of itself": "a: &a [*a]\n",
    "a merge bomb": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\n",
    "a deep list": "[" * 100_000,
    "a deep mapping": "{a: " * 50_000,
    "a deep block": "\n".join(" " * i + "a:" for i in range(2000)),
    "a tag that runs code": "name: !!python/object/apply:os.system ['touch executed']\n",
    "a tag that imports": "name: !!python/name:os.system\n",
    "two documents": "name: a\n---\nname: b\n",
    "a number of a million digits": f"name: {'9' * 10**6}\n",
    "a date that is none": "name: 2001-99-99\n",
    "a mapping as a key": "? {a: b}\n: c\n",
    "bytes": "name: !!binary aGVsbG8=\n",
    "a null byte": "name: a\x00b\n",
}


@pytest.mark.parametrize("name", CASES)
def test_documents_that_no_catalog_needs_are_refused(name, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "catalog.yaml").write_text(CASES[name])
    started = time.monotonic()
    outcome = run("catalog", "check", tmp_path / "catalog.yaml")
    assert time.monotonic() - started < 20
    assert (outcome.code, outcome.out) == (1, "")
    assert "Traceback" not in outcome.err
    assert "catalog.yaml: is not YAML that a catalog may hold: " in outcome.err or "line 1" in outcome.err
    assert [p.name for p in tmp_path.iterdir()] == ["catalog.yaml"]


@pytest.mark.parametrize("name", ["an alias bomb", "a deep list"])
def test_bombs_need_no_memory(name, tmp_path):
    (tmp_path / "catalog.yaml").write_text(CASES[name])
    ended = confined(tmp_path, "catalog", "check", tmp_path / "catalog.yaml")
    assert_one_line(ended, "is not YAML that a catalog may hold", memory_bytes=2**29)


def test_a_class_name_cannot_steer_the_terminal(tmp_path, run):
    text = load_benchmark("fuzz").CATALOG.decode().replace('"field"', '"\\e[31mfield"')
    (tmp_path / "catalog.yaml").write_text(text)
    outcome = run("catalog", "check", tmp_path / "catalog.yaml")
    assert outcome.code == 1
    assert "classes[1].name: holds a control character; leave it out" in outcome.err
    assert "\x1b" not in outcome.err


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_a_catalog_is_read_or_refused(data, tmp_path_factory):
    record = yaml.safe_load(load_benchmark("fuzz").CATALOG)
    del record["splits"]["val"]
    meddle(record, data, _VALUES)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(record, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(CatalogError):
        assert load_catalog(path).content_hash == load_catalog(path).content_hash


def test_mutated_text_is_read_or_refused():
    counts = load_benchmark("fuzz").fuzz_text("catalog", first=0, runs=1500, seconds=60)
    assert counts["findings"] == []
    assert counts["tried"] > 500
