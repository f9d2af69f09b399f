"""Change one thing in a record of lists and mappings."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def meddle(record: Any, data: st.DataObject, values: st.SearchStrategy[Any]) -> None:
    """One field, at any depth, becomes any of the values, is left out, or is joined by another."""
    place = record
    while True:
        key = data.draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "remove":
        del place[key]
    elif change == "replace":
        place[key] = data.draw(values)
    elif isinstance(place, dict):
        place[data.draw(st.text(max_size=8))] = data.draw(values)
